#!/usr/bin/env python3
"""Runs PyTorch (networks.py) and `lightcone bench` in turn on the same jets and prints the table of the README.

    python compare.py --out ../results/NAME [--nets transformer,transformer_10k,transformer_1k] [--rounds 2]

PyTorch runs with the python that runs this. Each side counts with the median over rounds; of PyTorch's ways (eager, compiled, and for bf16
also autocast) the fastest counts. Writes NAME.jsonl, every line that either side printed. Alone on the machine, or it means nothing.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

here = pathlib.Path(__file__).resolve().parent
root = here.parent.parent
jets = root / "data" / "toptagging_mini.npz"


def run(side, command, threads, log, limit=300):
    env = dict(os.environ, OMP_NUM_THREADS=str(threads))
    try:
        done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        print(f"{' '.join(map(str, command))}: not done after {limit} s, left out", file=sys.stderr)
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stderr[-500:]}", file=sys.stderr)
        return None
    result = {"side": side, **json.loads(lines[-1])}
    print(json.dumps(result), file=log, flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--nets", default="transformer,transformer_10k,transformer_1k")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lightcone", default=root / "build" / "lightcone")
    a = parser.parse_args()

    def torch(net, *options):
        return [sys.executable, "-W", "ignore", here / "networks.py", jets, "--net", net, "--threads", str(a.threads), *options]

    def ours(net, runs, *options):
        data = ["training=top_10k", "data.dataset=mini", f"data.data_dir={jets.parent}"]
        model = [f"model=tag_{net.removeprefix('lloca_')}"] + ["model/framesnet=learnedpd"] * net.startswith("lloca_")
        return [a.lightcone, "bench", *model, *data, *options, "--batch", "128", "--runs", str(runs)]

    def median(results, key):
        return statistics.median(r[key] for r in results)

    rows = []
    with open(f"{a.out}.jsonl", "w") as log:
        for net in a.nets.split(","):
            runs = 40 if net.endswith("k") else 7
            slow = ["--runs", "2" if net == "lgatr" else "3"] if net in ("lloca_transformer", "slim", "lgatr") else []
            sides = {
                "eager": torch(net, *slow),
                "f32": ours(net, runs),
                "compiled": torch(net, "--compile", *slow),
                "bf16": ours(net, runs, "model.use_amp=true"),
            }
            if net == "transformer":
                sides["autocast"] = torch(net, "--bf16")
            found = {side: [] for side in sides}
            for _ in range(a.rounds):
                for side, command in sides.items():
                    result = run(f"{'lightcone' if side in ('f32', 'bf16') else 'pytorch'} {side}", command, a.threads, log)
                    if result:
                        found[side].append(result)
            f32 = [found[s] for s in ("eager", "compiled") if found.get(s)]
            either = f32 + [found[s] for s in ("autocast",) if found.get(s)]
            for title, key, best, ways, mine in (
                ("training step, f32, ms", "train_step_ms", min, f32, "f32"),
                ("training step, bf16 products, ms", "train_step_ms", min, either, "bf16"),
                ("inference at 512 jets, f32, jets/s", "infer_jets_per_s", max, f32, "f32"),
                ("inference at 512 jets, bf16 products, jets/s", "infer_jets_per_s", max, either, "bf16"),
                ("one jet of 50, f32, ms", "infer_one_jet_ms", min, f32, "f32"),
                ("one jet of 50, bf16 products, ms", "infer_one_jet_ms", min, either, "bf16"),
                ("peak resident memory of training, MiB", "peak_rss_mib", min, f32, "f32"),
            ):
                theirs, own = best(median(w, key) for w in ways), median(found[mine], key)
                rows.append((net, title, theirs, own, own / theirs if best is max else theirs / own))
    print("| network | | PyTorch | Lightcone | ratio |\n|---|---|---|---|---|")
    for net, title, theirs, own, ratio in rows:
        print(f"| {net} | {title} | {theirs:.4g} | {own:.4g} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
