"""Training runs: logs, resume, fine-tuning, distillation, several processes."""

import argparse
import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import read_card
from tests.conftest import ROOT, Write
from training import train
from training.checkpoint import STATE, load_model
from training.config import FINE_TUNING_RATE, TrainingConfig, learning_rate, parse_config
from training.dataset import CaseSlices, load_split
from training.distillation import Ensemble
from training.train import TrainingRun


@pytest.fixture
def three(data: Path) -> Path:
    """Three cases whose images differ, and so their digests."""
    for name, modality in (("b", "t2"), ("c", "flair")):
        of = {m: data / name / f"{name}_{m}.nii.gz" for m in ("t1", modality)}
        of[modality].write_bytes(of["t1"].read_bytes())
    return data


@pytest.fixture
def data(write_case: Write, tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        write_case(name, folder=tmp_path / "data")
    return tmp_path / "data"


def arguments(data: Path, out: Path, **others: Any) -> argparse.Namespace:
    given = {
        "data": data, "out": out, "size": "nano", "epochs": 3, "steps": 2, "batch": 2,
        "rate": 3e-3, "seed": 5, "hold_out": "1", "start": None, "resume": False,
        "cache": data.parent / "cache", "wandb": False, "lesions": None, "slices": None,
        "patients": None, "phantoms": 0, "set": ["judge_every=2"], "teacher": [],
    }  # fmt: skip
    return argparse.Namespace(**(given | others))


@pytest.mark.slow
def test_a_run_is_a_model_folder_with_its_log(data: Path, tmp_path: Path) -> None:
    train.train_command(arguments(data, tmp_path / "run", epochs=5))
    network, card = load_model(tmp_path / "run")
    assert card.name == "nano"
    content = card.content
    assert len(content["training"]["cases"]) == 2
    assert len(content["held_out"]["cases"]) == 1
    assert "not a medical device" in content["intended_use"]
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [bool(row["mean"]) for row in rows] == [False, True, False, True, True]
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert not network.training


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_bytes(
    data: Path,
    cubes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    patients = tmp_path / "patients.csv"
    patients.write_text("case,lesion_patient,grade\na,P1,low\nb,P1,high\nc,P1,low\n")
    given: dict[str, Any] = {"lesions": cubes, "patients": patients, "batch": 4}
    train.train_command(arguments(data, tmp_path / "whole", **given))
    kept = read_json(tmp_path / "whole" / "card.json")["training"]["cubes"]
    assert (kept["patients"], kept["left_out"]) == (1, ["P1"])

    real = train.train_epoch

    def interrupt(*given: Any) -> float:
        if given[4] == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(train, "train_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train.train_command(arguments(data, tmp_path / "cut", **given))
    monkeypatch.undo()
    assert read_json(tmp_path / "cut" / "card.json")["training"]["epochs_done"] == 1
    assert "kept 1 of 3 epochs in " in capsys.readouterr().err
    with pytest.raises(GliosliceError, match="already holds a run"):
        train.train_command(arguments(data, tmp_path / "cut", **given))
    with pytest.raises(GliosliceError, match="different value of epochs"):
        train.train_command(arguments(data, tmp_path / "cut", epochs=4, resume=True, **given))
    train.train_command(arguments(data, tmp_path / "cut", resume=True, **given))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("nano.safetensors", STATE, "log.csv", "card.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def stop_in_batch(number: int, stop: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `stop` while the batch of this number, counted from 1 over the run, is made."""
    real, made = train.make_batch, 0

    def make_batch(*given: Any) -> Any:
        nonlocal made
        made += 1
        if made == number:
            stop()
        return real(*given)

    monkeypatch.setattr(train, "make_batch", make_batch)


def interrupt(times: int) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_within_an_epoch_ends_the_batch_and_keeps_it(
    data: Path,
    tmp_path: Path,
    times: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train.train_command(arguments(data, tmp_path / "whole", steps=3))
    stop_in_batch(5, lambda: interrupt(times), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train.train_command(arguments(data, tmp_path / "cut", steps=3))
    monkeypatch.undo()
    assert "kept 1 of 3 epochs and 2 of 3 batches of the next in " in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train.train_command(arguments(data, tmp_path / "cut", steps=3, resume=True))
    assert "1 of 3 epochs and 2 of 3 batches done" in capsys.readouterr().out
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_a_run_that_dies_within_its_first_epoch_resumes_from_the_last_save(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise RuntimeError("no power")

    train.train_command(arguments(data, tmp_path / "whole", steps=3))
    monkeypatch.setattr(train, "SAVE_EVERY", 0)
    stop_in_batch(3, die, monkeypatch)
    with pytest.raises(RuntimeError, match="no power"):
        train.train_command(arguments(data, tmp_path / "cut", steps=3))
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "card.json").exists()
    with pytest.raises(GliosliceError, match="already holds a run"):
        train.train_command(arguments(data, tmp_path / "cut", steps=3))
    train.train_command(arguments(data, tmp_path / "cut", steps=3, resume=True))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_cubes_need_a_table_of_patients(data: Path, cubes: Path, tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match="need --patients"):
        train.train_command(arguments(data, tmp_path / "run", lesions=cubes))


@pytest.mark.parametrize(
    ("setting", "message"),
    [("crop=100", "multiple of 32, at most 160"), ("speed=1", "there are epochs, steps"),
     ("missing=1.5", "from 0 to 1"), ("slices=0.9", "at most 1 together"),
     ("thick_from=7", "at most thick_to"), ("crop=wide", "type int"),
     ("judge_every=0", "must be at least 1")],
)  # fmt: skip
def test_invalid_settings(data: Path, tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(GliosliceError, match=message):
        train.train_command(arguments(data, tmp_path / "run", set=[setting]))


@pytest.mark.parametrize(
    ("name", "message"),
    [("huge", "no size 'huge': compact, nano, or package"), ("training.network:SIZES", "not a Net"),
     ("training.nowhere:NET", "cannot be imported")],
)  # fmt: skip
def test_invalid_networks(data: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(GliosliceError, match=message):
        train.train_command(arguments(data, tmp_path / "run", size=name))


@pytest.mark.slow
def test_the_saved_weights_are_the_average(data: Path, tmp_path: Path) -> None:
    train.train_command(arguments(data, tmp_path / "run", epochs=2))
    kept = load_file(tmp_path / "run" / "nano.safetensors")
    state = load_file(tmp_path / "run" / STATE)
    for name, tensor in kept.items():
        assert torch.equal(tensor, state[f"average.module.{name}"])
    assert not torch.equal(kept["head.weight"], state["network.head.weight"])


def test_nothing_to_resume(data: Path, tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match="nothing to resume"):
        train.train_command(arguments(data, tmp_path / "none", resume=True))


def test_a_model_folder_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    train.train_command(arguments(data, tmp_path / "model", epochs=1))
    (tmp_path / "model" / STATE).unlink()  # as in shipped models
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").glob("*.*")}
    with pytest.raises(GliosliceError, match="model: already holds"):
        train.train_command(arguments(data, tmp_path / "model"))
    with pytest.raises(GliosliceError, match="nothing to resume"):
        train.train_command(arguments(data, tmp_path / "model", resume=True))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "model").glob("*.*")}


@pytest.mark.slow
def test_fine_tuning_keeps_weights_and_training_cases(
    data: Path, tmp_path: Path, write_case: Write
) -> None:
    train.train_command(arguments(data, tmp_path / "base", hold_out="0"))
    images = write_case("mine", folder=tmp_path / "own")
    (images / "mine_t2.nii.gz").write_bytes((images / "mine_t1.nii.gz").read_bytes())
    own = arguments(
        tmp_path / "own", tmp_path / "tuned",
        start=tmp_path / "base", size=None, hold_out="0", rate=1e-9, epochs=1,
    )  # fmt: skip
    train.train_command(own)
    base, tuned = (load_file(tmp_path / r / "nano.safetensors") for r in ("base", "tuned"))
    for name, before in base.items():
        if name.endswith("weight"):
            torch.testing.assert_close(tuned[name], before, atol=1e-6, rtol=1e-6)
    seen = read_card(tmp_path / "tuned").trained_on
    first, last = (read_card(tmp_path / r).content["training"] for r in ("base", "tuned"))
    earlier = read_card(tmp_path / "tuned").content["earlier_training"]
    assert earlier == [{key: value for key, value in first.items() if key != "cases"}]
    assert (earlier[0]["rate"], last["rate"]) == (first["rate"], 1e-9)
    assert read_card(tmp_path / "base").trained_on < seen
    with pytest.raises(GliosliceError, match="is nano, but --size is compact"):
        train.train_command(
            arguments(data, tmp_path / "x", start=tmp_path / "base", size="compact")
        )


@pytest.mark.slow
def test_distillation_from_a_teacher(three: Path, tmp_path: Path) -> None:
    train.train_command(arguments(three, tmp_path / "alone"))
    train.train_command(arguments(three, tmp_path / "teacher", seed=6, hold_out="a"))
    options = {"teacher": [tmp_path / "teacher"], "hold_out": "a,b"}
    with pytest.raises(GliosliceError, match="trained on the held-out case b"):
        train.train_command(arguments(three, tmp_path / "student", **options))
    options["hold_out"] = "a"
    train.train_command(arguments(three, tmp_path / "student", **options))
    file = read_card(tmp_path / "teacher").content["files"]["nano.safetensors"]["sha256"]
    student = read_card(tmp_path / "student")
    assert student.content["training"]["teachers"] == [{"name": "nano", "sha256": file}]
    assert student.trained_on == read_card(tmp_path / "teacher").trained_on
    assert read_card(tmp_path / "alone").content["training"]["teachers"] == []
    given: dict[str, Any] = {"set": ["judge_every=2", "taught=0"], "hold_out": "a"}
    train.train_command(arguments(three, tmp_path / "zero", teacher=options["teacher"], **given))
    train.train_command(arguments(three, tmp_path / "untaught", **given))
    ignoring, untaught, taught = (
        load_file(tmp_path / run / "nano.safetensors") for run in ("zero", "untaught", "student")
    )
    assert all(torch.equal(ignoring[name], untaught[name]) for name in ignoring)
    assert not torch.equal(ignoring["head.weight"], taught["head.weight"])


@pytest.mark.slow
def test_norms_that_are_fixed_keep_their_means(three: Path, tmp_path: Path) -> None:
    train.train_command(arguments(three, tmp_path / "base", hold_out="0"))
    given = {"start": tmp_path / "base", "size": None, "hold_out": "0"}
    for name, value in ("moving", 0), ("fixed", 1):
        setting = {"set": [f"fixed_norms={value}"]}
        train.train_command(arguments(three, tmp_path / name, **(given | setting)))
    base, moving, fixed = (
        load_file(tmp_path / run / "nano.safetensors") for run in ("base", "moving", "fixed")
    )
    means = [name for name in base if name.endswith("running_mean")]
    assert all(torch.equal(fixed[name], base[name]) for name in means)
    assert not any(torch.equal(moving[name], base[name]) for name in means)
    assert not torch.equal(fixed["head.weight"], base["head.weight"])


def test_phantoms_have_their_share_of_a_batch(three: Path, tmp_path: Path) -> None:
    cases, _ = load_split(three, "0", 0, tmp_path / "cache")
    healthy = [replace(case, labels=np.zeros_like(case.labels)) for case in cases[:1]]
    config = TrainingConfig(batch=8, tumour=1.0, centred=1.0)

    def batch(phantoms: list[CaseSlices]) -> tuple[torch.Tensor, ...]:
        run = TrainingRun(
            config, {}, {}, cases, phantoms, None, None, [], Ensemble(), tmp_path
        )  # fmt: skip
        pools = train.make_pools(run, torch.device("cpu"))
        return train.make_batch(run, pools, torch.Generator().manual_seed(0))

    _, labels, phantom = batch(healthy)
    assert phantom.tolist() == [True] * 2 + [False] * 6
    assert labels.flatten(1).any(1).tolist() == [False] * 2 + [True] * 6
    assert not batch([])[2].any()


@pytest.mark.slow
def test_a_students_card_lists_its_teachers_cases(three: Path, tmp_path: Path) -> None:
    train.train_command(arguments(three, tmp_path / "teacher", hold_out="0", epochs=1))
    (few := tmp_path / "few").mkdir()
    (few / "a").symlink_to(three / "a")
    options = {"teacher": [tmp_path / "teacher"], "hold_out": "0", "epochs": 1}
    train.train_command(arguments(few, tmp_path / "student", **options))
    seen = [case["case"] for case in read_card(tmp_path / "student").content["training"]["cases"]]
    assert seen == ["a", "b", "c"]


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    config = TrainingConfig(epochs=10, steps=10, warmup=0.1, rate=1.0)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_fine_tuning_starts_at_a_lower_rate(data: Path, tmp_path: Path) -> None:
    def rate(**others: Any) -> float:
        return parse_config(arguments(data, tmp_path, **({"rate": None} | others))).rate

    assert rate() == TrainingConfig.rate
    assert rate(start=tmp_path) == FINE_TUNING_RATE < TrainingConfig.rate
    assert rate(start=tmp_path, rate=0.01) == 0.01


@pytest.mark.slow
def test_a_model_that_was_trained_on_a_held_out_patient_is_refused(
    three: Path, tmp_path: Path, cubes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patients = tmp_path / "patients.csv"
    patients.write_text("case,lesion_patient\na,P1\nb,P2\n")
    given: dict[str, Any] = {"epochs": 1, "steps": 1, "batch": 4, "patients": patients}
    train.train_command(arguments(three, tmp_path / "base", hold_out="a", lesions=cubes, **given))
    started: dict[str, Any] = given | {"start": tmp_path / "base", "size": None, "rate": None}
    with pytest.raises(GliosliceError, match="base: was trained on the held-out case b"):
        train.train_command(arguments(three, tmp_path / "x", hold_out="a,b", **started))
    assert not (tmp_path / "x").exists()
    capsys.readouterr()
    train.train_command(arguments(three, tmp_path / "tuned", hold_out="a", **started))
    assert f"at a peak rate of {FINE_TUNING_RATE:g}" in capsys.readouterr().out
    training = read_card(tmp_path / "tuned").content["training"]
    assert training["rate"] == FINE_TUNING_RATE


TRAIN = Path("training/train.py")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def command(
    *options: object, launcher: tuple[str, ...] = (), script: Path = TRAIN
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *launcher, str(script), *map(str, options)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


SHORT = ("--size", "nano", "--epochs", 2, "--steps", 2, "--batch", 2)

# A thread of gloo that outlives its group may abort the process while the interpreter ends.
LIST_THREADS = """
def end() -> None:
    threads = Path("/proc/self/task").glob("*/comm")
    left = [name for name in (path.read_text().strip() for path in threads) if "gloo" in name]
    print(f"threads of gloo left: {left}", flush=True)
"""

TRAIN_THEN_LIST = f"""
import sys
from pathlib import Path
from training import train
{LIST_THREADS}
train.main(sys.argv[1:])
end()
"""

FAIL_THEN_LIST = f"""
from pathlib import Path
import torch
from torch.nn.parallel import DistributedDataParallel
from training.trainer import distributed_context
{LIST_THREADS}
def fail() -> None:
    parallel = DistributedDataParallel(torch.nn.Linear(2, 2))
    parallel(torch.ones(2, 2)).sum().backward()
    raise ValueError

try:
    with distributed_context():
        fail()
except ValueError:  # its traceback is still there
    end()
"""


@pytest.mark.slow
def test_two_processes_by_torchrun(data: Path, tmp_path: Path) -> None:
    script = tmp_path / "train_then_list.py"
    script.write_text(TRAIN_THEN_LIST)
    weights = []
    for name, path, used, count in (
        ("two", TRAIN, TORCHRUN, 2),
        ("again", script, TORCHRUN, 2),
        ("one", TRAIN, (), 1),
    ):
        out = tmp_path / name
        options = ("--data", data, "--out", out, *SHORT, "--cache", tmp_path / "cache")
        done = command(*options, launcher=used, script=path)
        printed = done.stdout + done.stderr
        assert done.returncode == 0, printed
        assert done.stdout.count("epoch 2 ") == 1, printed
        assert f"{count} x cpu" in done.stdout, printed
        if path == script:
            assert done.stdout.count("threads of gloo left: []") == 2, printed
        weights.append((out / "nano.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]  # the second process contributes gradients


@pytest.mark.slow
def test_no_thread_of_the_process_group_outlives_an_error(tmp_path: Path) -> None:
    script = tmp_path / "fail_then_list.py"
    script.write_text(FAIL_THEN_LIST)
    done = command(launcher=TORCHRUN, script=script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("threads of gloo left: []") == 2, done.stdout + done.stderr


@pytest.mark.slow
def test_weights_and_biases_logs_offline(data: Path, tmp_path: Path) -> None:
    options = ("--data", data, "--out", tmp_path / "run", *SHORT, "--cache", tmp_path / "cache")
    done = command(*options, "--wandb")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.parametrize("options", [["{data}"], ["--data", "{data}"]])
def test_the_folder_of_cases_is_an_argument_or_an_option(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option.format(data=tmp_path / "none") for option in options]
    with pytest.raises(SystemExit) as end:
        train.main([*given, "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'none'}: ")


@pytest.mark.parametrize("options", [[], ["a", "--data", "b"]])
def test_the_folder_of_cases_is_named_once(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        train.main([*options, "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    assert "once" in capsys.readouterr().err


@pytest.mark.slow
def test_errors_are_one_line(tmp_path: Path) -> None:
    done = command("--data", tmp_path / "none", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'none'}: no such folder\n"
    assert "example:\n  glioslice train " in command("--help").stdout
