# ruff: noqa
# mypy: ignore-errors
"""A trial: more inputs, and a teacher of two million parameters, from the start on one fold.

    DATA4=SLICES EX4=EXTRAS python -m benchmarks.trial_inputs FOLD SEED SECONDS OUT

trains five networks on the same batches, until SECONDS have passed: `c` compact, `b` with two constant
channels that tell WT volume and ET/WT of a first pass, `d` with the differences between left and right of
FLAIR and T1ce, `t` the teacher, and `s` compact whose target is half labels, half the teacher of that time.
SLICES holds CASE.npy, CASE-labels.npy and CASE.digest of the prepared slices, EXTRAS holds cubes.npz,
slices.npz and patients.csv of the data. Written for one GPU that several processes share: nine ran at a
time (each fold twice, and all patients) and made 5,900 steps of 16 crops in 430 s.

    python -m benchmarks.trial_inputs table

prints the gains over `c`, paired by patient, from benchmarks/folds/trial-inputs.csv.
"""

import sys, os, csv, glob, time, math, json, copy
import numpy as np, torch
from pathlib import Path
from dataclasses import replace

torch.set_num_threads(1)
CUDA = torch.cuda.is_available()
if CUDA:
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def table():
    import csv
    from collections import defaultdict

    import numpy as np

    scores = defaultdict(lambda: defaultdict(list))
    for row in csv.DictReader(open("benchmarks/folds/trial-inputs.csv")):
        scores[row["network"]][row["case"]].append(
            np.mean([float(row[r]) for r in ("WT", "TC", "ET")])
        )
    means = {k: np.array([np.mean(v) for _, v in sorted(of.items())]) for k, of in scores.items()}
    draws = np.random.default_rng(0).integers(0, 60, (10000, 60))
    for k, mean in means.items():
        gain = mean - means["c"]
        low, high = np.percentile(gain[draws].mean(1), [2.5, 97.5])
        print(f"{k}: {mean.mean():.4f}  {gain.mean():+.4f} ({low:+.4f} to {high:+.4f})")


if sys.argv[1:] == ["table"]:
    table()
    sys.exit()

DATA = os.environ["DATA4"]
EX = Path(os.environ["EX4"])
from training.config import TrainingConfig
from training import augment as au
from training.dataset import (
    CaseSlices,
    make_pool,
    resample_volumes,
    random_patient,
    crop_centre,
    STEP,
)
from training.extra_images import (
    load_lesion_cubes,
    load_single_slices,
    make_canvases,
    read_lesion_patients,
)
from training.augment import warp, BatchRandom, RAW_ZERO, _drop_modalities
from training.network import SIZES, NetworkConfig, build_network, count_parameters
from training.trainer import RegionLoss, new_trainer, record_cuda_graphs, DistributedContext
from glioslice.preprocessing import CLIP
from glioslice.cases import MODALITIES
from glioslice.labels import CORE, ENHANCING, EDEMA


fold, seed, limit, out = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
BATCH = int(os.environ.get("BATCH4", 16))
MAXSTEPS = int(os.environ.get("MAX4", 20000))
EPOCH = 500
dev = torch.device("cuda" if CUDA else "cpu")
rows = list(csv.DictReader(open("benchmarks/folds/folds.csv")))
FOLD = {r["case"]: r["fold"] for r in rows}
GRADE = {r["case"]: r["grade"] for r in rows}
SYM = (MODALITIES.index("flair"), MODALITIES.index("t1ce"))
VOL = {}
for f in "1234":
    for r in csv.DictReader(open(f"benchmarks/folds/compact-{f}/scores.csv")):
        if r["precision"] == "int8" and r["masks"] == "mirrored, rules":
            wt, et = float(r["volume_WT"]), float(r["volume_ET"])
            VOL[r["case"]] = (wt, et / max(wt, 0.001))
assert len(VOL) == 60


def features(wt, ratio):
    return np.array(
        [(math.log(max(wt, 0.5)) - 4.3) / 0.9, (math.log2(ratio + 0.01) + 2.6) / 1.4], np.float32
    ).clip(-2.5, 2.5)


def case_slices(c):
    return CaseSlices(
        c,
        open(f"{DATA}/{c}.digest").read(),
        np.load(f"{DATA}/{c}.npy", mmap_mode="r"),
        np.load(f"{DATA}/{c}-labels.npy", mmap_mode="r"),
        GRADE[c],
    )


have = {os.path.basename(f)[:-7] for f in glob.glob(DATA + "/*.digest")}


def source(*n):
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence([seed, *n]).generate_state(1, np.uint64)[0]) >> 1
    )


def difference(x):
    m = x.flip(2)
    return torch.cat(
        [(x[:, [c]] - m[:, [c]]) * ((x[:, [c]] != 0) & (m[:, [c]] != 0)) for c in SYM], 1
    )


def sample(pool, count, config, generator):
    uniform = torch.rand(count, 9, generator=generator, dtype=torch.float64).numpy()
    chosen = np.empty(count, np.int64)
    centres = np.empty((count, 2), np.float32)
    who = np.empty(count, np.int64)
    for i, numbers in enumerate(uniform):
        grade, which, tumour, index, centred, voxel, *shift, _ = numbers
        p = who[i] = random_patient(pool.grades, config.low_grade, grade, which)
        s = pool.with_tumour[p]
        if not len(s) or tumour >= config.tumour:
            s = pool.patients[p]
        n = chosen[i] = s[int(index * len(s))]
        v = pool.voxels[pool.first_voxel[n] : pool.first_voxel[n + 1]]
        on = int(v[int(voxel * len(v))]) if len(v) else None
        centres[i] = crop_centre(on if centred < config.centred else None, config.crop, shift)
    where = torch.from_numpy(chosen).to(dev)
    images = pool.images[where]
    if pool.resampled is not None:
        use = torch.from_numpy(uniform[:, -1] < config.resampled).to(dev)
        images = torch.where(use[:, None, None, None], pool.resampled[where], images)
    images = images.permute(0, 3, 1, 2).float() * STEP
    if pool.jitter:
        change = 2 * torch.rand(2, count, 4, 1, 1, generator=generator) - 1
        factor, level = (change * pool.jitter).to(dev)
        images = (images * torch.exp(factor) + level) * (images != 0)
    return images, pool.labels[where], torch.from_numpy(centres).to(dev), who


def intensities(images, generator):
    random, (_, _, h, w) = BatchRandom(images, generator), images.shape
    knots = random.normal(4, 4, 4) * random.uniform(0, 0.12, 4, 1, 1)
    chosen = random.choose(0.5, 4)
    raw = (images + RAW_ZERO).clamp(min=0)
    field = torch.ones(len(images), 4, h, w, device=dev)
    field[chosen] = torch.exp(
        torch.nn.functional.interpolate(
            knots[chosen][:, None], (h, w), mode="bicubic", align_corners=True
        )
    )[:, 0]
    gamma = torch.exp(random.uniform(-0.3, 0.3, 4, 1, 1) * random.bernoulli(0.5, 4, 1, 1))
    contrast = torch.exp(random.uniform(-0.25, 0.25, 4, 1, 1))
    bright = random.uniform(-0.3, 0.3, 4, 1, 1)
    ix = [0, 1, 2, 3, *SYM]
    raw = raw * field[:, ix]
    return (RAW_ZERO * (raw / RAW_ZERO).clamp(min=1e-3) ** gamma[:, ix] - RAW_ZERO) * contrast[
        :, ix
    ] + bright[:, ix]


def batch(pools, lesions, config, feat, generator):
    vols, single = pools
    nc = round(config.batch * config.lesions)
    ns = round(config.batch * config.slices)
    a = sample(vols, config.batch - nc - ns, config, generator)
    b = sample(single, ns, config, generator)
    images, labels, centres = (torch.cat(p) for p in zip(a[:3], b[:3]))
    six = torch.cat([images, images.flip(2)[:, SYM]], 1)
    moved, labels = warp(six, labels, centres, (config.crop,) * 2, generator)
    const = torch.zeros(config.batch, 2)
    n = torch.randn(len(a[3]), 2, generator=generator)
    for i, p in enumerate(a[3]):
        wt, r = feat[p]
        const[i] = torch.from_numpy(
            features(wt * math.exp(0.15 * float(n[i, 0])), r * math.exp(0.25 * float(n[i, 1])))
        )
    const = const.to(dev)
    ci, cl = make_canvases(lesions, nc, config.crop, generator, dev)
    six = torch.cat([moved, torch.cat([ci, torch.zeros(nc, 2, *ci.shape[2:], device=dev)], 1)])
    labels = torch.cat([labels, cl])
    brain = (six[:, :4] != 0).any(1, keepdim=True)
    other = six[:, 4:] != 0
    x = intensities(six, generator)
    four = au._blur_and_noise(x[:, :4].contiguous(), generator)
    four = torch.where(brain, four, 0.0).clamp(-CLIP, CLIP)
    four = _drop_modalities(four, config.missing, generator)
    base = four[:, SYM]
    present = (base != 0).any(-1, keepdim=True).any(-2, keepdim=True)
    diff = (base - x[:, 4:].clamp(-CLIP, CLIP)) * (other & brain & present)
    return four, diff, const, labels


def inputs(kind, four, diff, const):
    if kind == "d":
        return torch.cat([four, diff], 1)
    if kind == "b":
        return torch.cat([four, const[:, :, None, None].expand(-1, -1, *four.shape[2:])], 1)
    return four


from scipy import ndimage


def rules(lab):
    wt, n = ndimage.label(lab > 0, np.ones((3, 3, 3)))
    if n:
        cnt = np.bincount(wt.ravel())
        cnt[0] = 0
        small = cnt * 10 < cnt.max()
        small[0] = False
        lab = np.where(small[wt], 0, lab).astype(np.uint8)
    if 0 < (lab == ENHANCING).sum() < 100:
        lab = np.where(lab == ENHANCING, CORE, lab)
    return lab


def dice(a, b):
    return 1.0 if not a.any() and not b.any() else float(2 * (a & b).sum() / (a.sum() + b.sum()))


def score(reg, lab, rule=True):
    m = np.zeros(lab.shape, np.uint8)
    m[reg[:, 0]] = EDEMA
    m[reg[:, 1]] = CORE
    m[reg[:, 2]] = ENHANCING
    if rule:
        m = rules(m)
    return [
        dice(m > 0, lab > 0),
        dice((m == CORE) | (m == ENHANCING), (lab == CORE) | (lab == ENHANCING)),
        dice(m == ENHANCING, lab == ENHANCING),
    ], float((m == ENHANCING).sum() / 1000)


@torch.no_grad()
def probabilities(net, kind, c):
    x = torch.from_numpy(np.array(c.images)).to(dev).permute(0, 3, 1, 2).float()
    x = (x.clamp(-CLIP, CLIP) / STEP).round() * STEP
    const = torch.from_numpy(features(*VOL[c.case])).to(dev)[None]

    def run(y):
        z = inputs(
            kind, y, difference(y) if kind == "d" else None, const.expand(len(y), 2)
        ).contiguous(memory_format=torch.channels_last)
        return net(z).float()

    return torch.cat([torch.sigmoid((run(y) + run(y.flip(2)).flip(2)) / 2) for y in x.split(32)])


def main():
    os.makedirs(out, exist_ok=True)
    t0 = time.time()
    config = TrainingConfig(epochs=1, steps=MAXSTEPS, batch=BATCH, seed=seed)
    names = sorted(c for c in FOLD if c in have and FOLD[c] != fold)
    held = sorted(c for c in FOLD if c in have and FOLD[c] == fold)
    cases = [case_slices(c) for c in names]
    name = read_lesion_patients(EX / "patients.csv")
    left = {name[c] for c in FOLD if FOLD[c] == fold and c in name}
    lesions = load_lesion_cubes(EX / "cubes.npz", left)
    single = load_single_slices(EX / "slices.npz", left)
    vols = make_pool(
        [c.images for c in cases],
        [c.labels for c in cases],
        [c.grade for c in cases],
        dev,
        resampled=True,
    )
    pools = (
        vols,
        make_pool(single.images, single.labels, single.grades, dev, jitter=config.slice_jitter),
    )
    feat = [VOL[c.case] for c in cases]
    context = DistributedContext(0, 1, dev, CUDA)
    torch.manual_seed(seed * 1000 + int(fold))
    kinds = "cbdst" if held else "cst"
    nets = {}
    trainers = {}
    fast = {}
    for k in kinds:
        cfg = (
            NetworkConfig((40, 64, 96, 128, 160, 176), upsampling="bilinear", stem=1)
            if k == "t"
            else replace(SIZES["compact"], inputs={"b": 6, "d": 6}.get(k, 4))
        )
        torch.manual_seed(seed * 1000 + int(fold))
        nets[k] = build_network(cfg).to(dev, memory_format=torch.channels_last)
        trainers[k] = new_trainer(nets[k], replace(config, decay=1e-2) if k == "t" else config)
        fast[k] = record_cuda_graphs(nets[k], config.batch, config.crop, context)
    print(
        "ready",
        round(time.time() - t0, 1),
        "s",
        len(cases),
        len(held),
        {k: count_parameters(n) for k, n in nets.items()},
        flush=True,
    )
    crit = RegionLoss()
    sums = {k: torch.zeros((), device=dev) for k in kinds}
    start = time.time()
    s = 0
    p = 0.0
    while p < 1:
        if s % EPOCH == 0:
            resample_volumes(vols, config, source(9, s))
        if s % 20 == 0:
            p = max((time.time() - start) / limit, s / MAXSTEPS)
        if p >= 1:
            break
        four, diff, const, labels = batch(pools, lesions, config, feat, source(1, s))
        warm = min(1.0, (s + 1) / 400)
        lr = warm * 0.5 * (1 + math.cos(math.pi * min(1, p)))
        said = None
        if s >= int(os.environ.get("WARM4", 800)):
            with torch.no_grad(), torch.autocast(dev.type, torch.bfloat16):
                te = trainers["t"].averaged_network.eval()
                said = torch.sigmoid(te(four.contiguous(memory_format=torch.channels_last)).float())
        for k, tr in trainers.items():
            for g in tr.optimiser.param_groups:
                g["lr"] = lr * (2e-3 if k == "t" else 3e-3)
            tr.network.train()
            with torch.autocast(dev.type, torch.bfloat16):
                logits = fast[k](
                    inputs(k, four, diff, const).contiguous(memory_format=torch.channels_last)
                )
            loss = (
                crit(logits, labels, said, 0.5)
                if k == "s" and said is not None
                else crit(logits, labels)
            )
            tr.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            tr.optimiser.step()
            tr.average.update_parameters(tr.network)
            sums[k] += loss.detach()
        s += 1
        if s % 500 == 0 or s in (5, 50):
            print(
                s,
                round(time.time() - start),
                "s p",
                round(p, 3),
                {k: round(float(v) / (500 if s % 500 == 0 else s), 4) for k, v in sums.items()},
                flush=True,
            )
            if s % 500 == 0:
                sums = {k: torch.zeros((), device=dev) for k in kinds}
    print("trained", s, "steps", round(time.time() - start), "s", flush=True)
    torch.backends.cudnn.benchmark = False
    av = {k: tr.averaged_network.eval() for k, tr in trainers.items()}
    torch.save({k: n.state_dict() for k, n in av.items() if k != "t"}, f"{out}/nets.pt")
    torch.save(
        {k: (v.half() if v.is_floating_point() else v) for k, v in av["t"].state_dict().items()},
        f"{out}/teacher.pt",
    )
    res = []
    for name in held:
        c = case_slices(name)
        lab = np.asarray(c.labels)
        lab = np.where(lab == 255, 0, lab)
        r = {"case": name}
        th = torch.tensor([0.4, 0.4, 0.5], device=dev)[:, None, None]
        for k in kinds:
            reg = (probabilities(av[k], k, c) > th).cpu().numpy()
            r[k], r[k + "_et"] = score(reg, lab)
            r[k + "_raw"] = score(reg, lab, False)[0]
        res.append(r)
        json.dump({"steps": s, "scores": res}, open(f"{out}/scores.json", "w"))
    if res:
        print(
            {
                k: [
                    round(v, 4)
                    for v in [*np.mean([r[k] for r in res], 0), np.mean([r[k] for r in res])]
                ]
                for k in kinds
            },
            flush=True,
        )
    print("done", round(time.time() - t0), flush=True)


if __name__ == "__main__":
    main()
