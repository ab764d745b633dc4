#!/usr/bin/env python3
"""How equivariant the published PyTorch networks are: the other side of `lightcone inspect --equivariance RUN`.

    pip install torch lloca==1.3.6 lgatr==1.4.4 torch-geometric hydra-core safetensors numpy
    python equivariance.py RUN JETS.npz --reference TAGGER-QUANTIZATION model=tag_transformer_1k model/framesnet=learnedpd …

RUN is the folder of a Lightcone run, whose weights the network gets (the names are the same); the overrides are those of that run and
compose the configuration of the authors' repository at --reference. Jets of the test set are boosted, the reference vectors with them;
prints the change of the logit, mean and largest, over jets and directions, of a network in f64 and of one in f32 with f64 momenta, both
against f64 before the boost. With --regulate the jets get the mass regulator before they are boosted (and after it again).
"""
import argparse
import pathlib
import sys

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from safetensors.torch import load_file

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", type=pathlib.Path)
parser.add_argument("jets")
parser.add_argument("overrides", nargs="*")
parser.add_argument("--reference", type=pathlib.Path, required=True)
parser.add_argument("--number", type=int, default=64, help="of jets")
parser.add_argument("--directions", type=int, default=8)
parser.add_argument("--rapidities", default="0.5,1,2,3,4,5")
parser.add_argument("--regulate", action="store_true")
parser.add_argument("--threads", type=int, default=1)
a = parser.parse_intermixed_args()
sys.path.insert(0, str(a.reference))
torch.set_num_threads(a.threads)

from experiments.tagging import embedding, wrappers  # noqa: E402  (of the reference)

# What xformers' mask is on a CPU, without xformers.
wrappers.get_attention_mask = lambda batch, **_: {"attn_mask": batch[:, None] == batch[None, :]}

with initialize_config_dir(str(a.reference.resolve() / "config"), version_base=None):
    cfg = compose("toptagging", a.overrides)
features = embedding.get_num_tagging_features(cfg.data.tagging_features)
cfg.model.out_channels = 1
if cfg.model.net._target_.startswith("lgatr."):
    cfg.model.net.in_s_channels = features + (not cfg.model.mean_aggregation)
    cfg.data.boost_jet = False
else:
    cfg.model.in_channels = 7 + (not cfg.model.mean_aggregation)
    cfg.model.framesnet.equivectors.num_scalars = features


def regulated(p):
    m2 = cfg.data.mass_reg**2
    p2 = (p[:, 1:] ** 2).sum(-1)
    light = p[:, 0] ** 2 - p2 < m2
    return torch.cat([torch.where(light, (p2 + m2).sqrt(), p[:, 0])[:, None], p[:, 1:]], -1)


def read_jets():
    with np.load(a.jets) as f:
        stored = torch.from_numpy(f["kinematics_test"][: a.number]).double()
    present = (stored.abs() > 1e-5).all(-1)
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), present.sum(1).cumsum(0)])
    p = stored[present]
    return (regulated(p) if a.regulate else p), ptr


def boost(rapidity):
    n = torch.randn(3, dtype=torch.float64)
    n /= n.norm()
    m = torch.zeros(4, 4, dtype=torch.float64)
    m[0, 0] = np.cosh(rapidity)
    m[0, 1:] = m[1:, 0] = np.sinh(rapidity) * n
    m[1:, 1:] = torch.eye(3) + (np.cosh(rapidity) - 1) * n[:, None] * n
    return m


laboratory = torch.eye(4, dtype=torch.float64)
spurions_at_rest = embedding.get_spurion
embedding.get_spurion = lambda *options: regulated(spurions_at_rest(*options)) @ laboratory.T


def network(dtype):
    # The file's f64 weights, and buffers of its own dtype (statistics of pairs).
    model = instantiate(cfg.model).to(dtype).eval()
    model.load_state_dict(weights)
    return model


def logits(model, dtype, lorentz):
    global laboratory
    laboratory = lorentz
    p, offsets = momenta @ lorentz.T, ptr.clone()
    e = embedding.embed_tagging_data(p, torch.zeros(len(p), 0, dtype=dtype), offsets, cfg.data)
    e["num_graphs"] = len(ptr) - 1
    with torch.inference_mode():
        return model(e)[0][:, 0].double()


torch.manual_seed(1)
weights = load_file(max(a.run.glob("models/model_run*.safetensors")))
momenta, ptr = read_jets()
double, single = network(torch.float64), network(torch.float32)
before = logits(double, torch.float64, laboratory)
print(f"{len(ptr) - 1} jets, mean |logit| {before.abs().mean():.3g}; change of the logit, mean and largest")
print(f"{'rapidity':>8} {'f64':>21} {'f32':>21}")
for rapidity in map(float, a.rapidities.split(",")):
    found = {torch.float64: [], torch.float32: []}
    for _ in range(a.directions):
        lorentz = boost(rapidity)
        for dtype, model in ((torch.float64, double), (torch.float32, single)):
            found[dtype].append((logits(model, dtype, lorentz) - before).abs())
    columns = [torch.stack(changes) for changes in found.values()]
    print(f"{rapidity:>8}" + "".join(f"   {c.mean():>9.1e} {c.max():>9.1e}" for c in columns), flush=True)
