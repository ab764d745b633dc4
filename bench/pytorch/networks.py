#!/usr/bin/env python3
"""The PyTorch side of `lightcone bench`: times the published networks (packages lloca and lgatr) at their best on a CPU.

    pip install torch lloca==1.3.6 lgatr==1.4.4 torch-geometric numpy
    OMP_NUM_THREADS=2 python networks.py ../../data/toptagging_mini.npz --net transformer_10k [--compile] [--bf16]

Linear layers see the tokens of all jets without padding; only inside attention are jets padded to the longest of the batch. (The package
itself builds a mask of all tokens by all tokens, which is far slower.) A step is features, forward, backward, clipping by norm and
AdamW, as in Lightcone. Prints one line of JSON. One network per process: the peak memory is that of the process.
"""
import argparse
import json
import resource
import statistics
import time

import lgatr
import lgatr.primitives.attention_backends.native as lgatr_backend
import lloca.backbone.attention_backends.native as lloca_backend
import numpy as np
import torch
from lloca.backbone.transformer import Transformer
from lloca.equivectors.mlp import MLPVectors
from lloca.framesnet.equi_frames import LearnedPDFrames
from lloca.framesnet.frames import Frames
from lloca.framesnet.nonequi_frames import IdentityFrames
from torch.nn import functional as F


class Batch:
    """Jets in a row: momenta [T, 4], the jet of each token, and where its token stands in [jets, longest]."""

    def __init__(self, jets, labels):
        present = (np.abs(jets) > 1e-5).all(-1)
        counts = torch.from_numpy(present.sum(1))
        self.p = torch.from_numpy(jets[present].astype(np.float32))
        self.labels = torch.from_numpy(labels.astype(np.float32))
        self.counts = counts
        self.jet = torch.repeat_interleave(torch.arange(len(jets)), counts)
        starts = torch.cumsum(counts, 0) - counts
        slots = torch.arange(int(counts.max()))
        self.mask = slots[None] < counts[:, None]
        self.padded = torch.where(self.mask, starts[:, None] + slots[None], 0).reshape(-1)
        self.ragged = torch.nonzero(self.mask.reshape(-1))[:, 0]
        self.ptr = torch.cat([torch.zeros(1, dtype=torch.long), torch.cumsum(counts, 0)])


current = None  # the batch that attention is in


def attention(q, k, v, attn_mask=None, **options):
    """q, k, v [1, heads, T, channels] of all jets -> the same, each jet by itself."""
    shape = current.mask.shape

    def pad(x):
        return x[0].index_select(1, current.padded).reshape(x.shape[1], *shape, x.shape[-1]).transpose(0, 1)

    y = F.scaled_dot_product_attention(pad(q), pad(k), pad(v), attn_mask=current.mask[:, None, None, :])
    return y.transpose(0, 1).reshape(y.shape[1], -1, y.shape[-1]).index_select(1, current.ragged)[None]


lloca_backend.attention = lgatr_backend.attention = attention


def jet_momenta(b):
    """The jet of each constituent."""
    return torch.zeros(len(b.counts), 4).index_add(0, b.jet, b.p)[b.jet]


def relative_features(p, jet):
    """The seven tagging features."""
    E, px, py, pz = p.unbind(-1)
    pt, jet_pt = torch.hypot(px, py), torch.hypot(jet[:, 1], jet[:, 2])
    deta = torch.asinh(pz / pt) - torch.asinh(jet[:, 3] / jet_pt)
    dphi = torch.atan2(py, px) - torch.atan2(jet[:, 2], jet[:, 1])
    dphi = torch.remainder(dphi + torch.pi, 2 * torch.pi) - torch.pi
    return torch.stack(
        [pt.log(), E.log(), (pt / jet_pt).log(), (E / jet[:, 0]).log(), dphi, deta, torch.hypot(deta, dphi)], -1
    )


def means(y, jet, counts):
    return torch.zeros(len(counts), 1).index_add(0, jet, y.float())[:, 0] / counts


class TransformerTagger(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net = Transformer(in_channels=7, out_channels=1, **options)
        self.frames = IdentityFrames()

    def forward(self, x, b):
        return means(self.net(inputs=x[None], frames=self.frames(b.p[None]), attn_mask=None)[0], b.jet, b.counts)


class LlocaTagger(torch.nn.Module):
    """Learned frames from f64 momenta; features in the local frames, as the published wrapper has them."""

    def __init__(self, hidden, **options):
        super().__init__()
        self.net = Transformer(in_channels=7, out_channels=1, **options)
        ortho = dict(use_float64=True, method="gramschmidt", eps_norm=1e-15, eps_reg=1e-16, eps_reg_lightlike=1e-16)
        self.frames = LearnedPDFrames(
            equivectors=lambda n_vectors: MLPVectors(n_vectors, num_scalars=7, hidden_channels=hidden, num_layers_mlp=2),
            ortho_kwargs=ortho,
        )

    def prepare(self, b):
        self.frames.equivectors.init_standardization(b.p.double(), b.ptr)

    def forward(self, x, b):
        matrices = self.frames(b.p.double(), scalars=x, ptr=b.ptr).matrices
        local = (matrices @ b.p.double()[..., None])[..., 0]
        jet = (matrices @ jet_momenta(b).double()[..., None])[..., 0]
        x = relative_features(local, jet).float()
        return means(self.net(inputs=x[None], frames=Frames(matrices.float()[None]), attn_mask=None)[0], b.jet, b.counts)


class SlimTagger(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net = lgatr.LGATrSlim(in_v_channels=1, in_s_channels=7, out_v_channels=0, out_s_channels=1, compile=False, **options)

    def forward(self, x, b):
        return means(self.net((b.p / 20)[None, :, None, :], x[None], attn_mask=None)[1][0], b.jet, b.counts)


class LGATrTagger(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net = lgatr.LGATr(in_mv_channels=1, in_s_channels=7, out_mv_channels=1, out_s_channels=None, **options)

    def forward(self, x, b):
        out, _ = self.net(lgatr.embed_vector(b.p / 20)[None, :, None, :], x[None], attn_mask=None)
        return means(lgatr.extract_scalar(out)[0, :, 0], b.jet, b.counts)


SIZES = {
    "transformer": dict(attn_reps="8x0n+2x1n", num_blocks=10, num_heads=8, mlp_factor=4),
    "transformer_10k": dict(attn_reps="4x0n+1x1n", num_blocks=2, num_heads=4, mlp_factor=2),
    "transformer_1k": dict(attn_reps="4x0n+1x1n", num_blocks=1, num_heads=2, mlp_factor=1),
    "slim": dict(hidden_v_channels=32, hidden_s_channels=96, num_blocks=12, num_heads=8, mlp_ratio=4, attn_ratio=1),
    "lgatr": dict(
        hidden_mv_channels=16,
        hidden_s_channels=32,
        num_blocks=12,
        attention=dict(num_heads=8, multi_query=False, increase_hidden_channels=2, head_scale=True),
        mlp=dict(activation="gelu", increase_hidden_channels=2),
    ),
}
NETS = {name: lambda name=name: TransformerTagger(**SIZES[name]) for name in ("transformer", "transformer_10k", "transformer_1k")}
NETS["lloca_transformer"] = lambda: LlocaTagger(32, **SIZES["transformer"])
NETS["slim"] = lambda: SlimTagger(**SIZES["slim"])
NETS["lgatr"] = lambda: LGATrTagger(**SIZES["lgatr"])


def milliseconds(runs, f):
    f()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        f()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), min(times), max(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jets", help="npz with kinematics_train and labels_train")
    parser.add_argument("--net", default="transformer", choices=NETS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--inference", type=int, default=512, help="jets of the large batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="torch.autocast")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    with np.load(a.jets) as f:
        jets, labels = f["kinematics_train"], f["labels_train"]
    net = NETS[a.net]()
    run = torch.compile(net, dynamic=True) if a.compile else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)

    def score(b):
        global current
        current = b
        with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
            return run(relative_features(b.p, jet_momenta(b)), b)

    batch = Batch(jets[: a.batch], labels[: a.batch])

    if hasattr(net, "prepare"):
        net.prepare(batch)

    def step():
        optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(score(batch).float(), batch.labels).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

    train = milliseconds(a.runs, step)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    large = Batch(jets[: a.inference], labels[: a.inference])
    long = next(i for i, j in enumerate(jets) if (np.abs(j) > 1e-5).all(-1).sum() >= 50)
    one = Batch(jets[long : long + 1, :50], labels[long : long + 1])
    net.eval()
    with torch.inference_mode():
        many = milliseconds(a.runs, lambda: score(large))
        single = milliseconds(max(20, a.runs), lambda: score(one))
    print(
        json.dumps(
            {
                "net": a.net,
                "torch": torch.__version__,
                "compile": a.compile,
                "bf16": a.bf16,
                "threads": a.threads,
                "batch": a.batch,
                "tokens": len(batch.p),
                "params": sum(p.numel() for p in net.parameters()),
                "train_step_ms": train[0],
                "train_step_ms_range": train[1:],
                "infer_jets_per_s": 1e3 * a.inference / many[0],
                "infer_one_jet_ms": single[0],
                "peak_rss_mib": peak,
            }
        )
    )


if __name__ == "__main__":
    main()
