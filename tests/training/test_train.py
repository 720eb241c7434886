"""Runs of training as a user starts them: logs, resume, fine-tuning, several processes."""

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import read_card
from tests.conftest import ROOT, Write
from training import train
from training.checkpoint import STATE, load_model
from training.config import Recipe, rate_at


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
        "cache": data.parent / "cache", "wandb": False, "lesions": None, "patients": None,
        "set": ["judge_every=2"], "teacher": [],
    }  # fmt: skip
    return argparse.Namespace(**(given | others))


def test_a_run_is_a_model_folder_with_its_log(data: Path, tmp_path: Path) -> None:
    train.work(arguments(data, tmp_path / "run", epochs=5))
    network, card = load_model(tmp_path / "run")
    assert card.name == "nano"
    content = card.content
    assert len(content["training"]["cases"]) == 2
    assert len(content["held_out"]["cases"]) == 1
    assert "no medical device" in content["intended_use"]
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert 0 <= float(rows[4]["mean"]) <= 1
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert not network.training


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_bytes(
    data: Path, cubes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients = tmp_path / "patients.csv"
    patients.write_text("case,lesion_patient\na,P1\nb,P1\nc,P1\n")
    given: dict[str, Any] = {"lesions": cubes, "patients": patients, "batch": 4}
    train.work(arguments(data, tmp_path / "whole", **given))
    kept = read_json(tmp_path / "whole" / "card.json")["training"]["cubes"]
    assert (kept["patients"], kept["left_out"]) == (1, ["P1"])

    real = train.one_epoch

    def pull_the_plug(*given: Any) -> float:
        if given[3] == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(train, "one_epoch", pull_the_plug)
    with pytest.raises(KeyboardInterrupt):
        train.work(arguments(data, tmp_path / "cut", **given))
    monkeypatch.undo()
    assert read_json(tmp_path / "cut" / "card.json")["training"]["epochs_done"] == 1
    with pytest.raises(GliosliceError, match="holds a run or a model; add --resume"):
        train.work(arguments(data, tmp_path / "cut", **given))
    with pytest.raises(GliosliceError, match="was started with other epochs"):
        train.work(arguments(data, tmp_path / "cut", epochs=4, resume=True, **given))
    train.work(arguments(data, tmp_path / "cut", resume=True, **given))
    for name in ("nano.safetensors", STATE, "log.csv", "card.json"):
        whole, cut = (tmp_path / run / name for run in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes(), name


def test_cubes_need_to_be_somebodys(data: Path, cubes: Path, tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match="--lesions needs --patients"):
        train.work(arguments(data, tmp_path / "run", lesions=cubes))


@pytest.mark.parametrize(
    ("word", "said"),
    [("crop=100", "a multiple of 32 up to 160"), ("speed=1", "a recipe has epochs, steps"),
     ("crop=wide", "crop is int"), ("judge_every=0", "must be at least 1")],
)  # fmt: skip
def test_settings_that_no_recipe_has(data: Path, tmp_path: Path, word: str, said: str) -> None:
    with pytest.raises(GliosliceError, match=said):
        train.work(arguments(data, tmp_path / "run", set=[word]))


@pytest.mark.parametrize(
    ("name", "said"),
    [("huge", "no size 'huge': compact, nano, or package"), ("training.network:SIZES", "not a Net"),
     ("training.nowhere:NET", "cannot be imported")],
)  # fmt: skip
def test_networks_that_there_are_not(data: Path, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(GliosliceError, match=said):
        train.work(arguments(data, tmp_path / "run", size=name))


def test_the_kept_weights_are_the_average(data: Path, tmp_path: Path) -> None:
    train.work(arguments(data, tmp_path / "run", epochs=2))
    kept = load_file(tmp_path / "run" / "nano.safetensors")
    state = load_file(tmp_path / "run" / STATE)
    for name, tensor in kept.items():
        assert torch.equal(tensor, state[f"average.module.{name}"])
    assert not torch.equal(kept["head.weight"], state["network.head.weight"])


def test_nothing_to_resume(data: Path, tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match="nothing to resume"):
        train.work(arguments(data, tmp_path / "none", resume=True))


def test_a_model_is_not_trained_over(data: Path, tmp_path: Path) -> None:
    train.work(arguments(data, tmp_path / "model", epochs=1))
    (tmp_path / "model" / STATE).unlink()  # as what is shipped
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").glob("*.*")}
    with pytest.raises(GliosliceError, match="model: holds a run or a model"):
        train.work(arguments(data, tmp_path / "model"))
    with pytest.raises(GliosliceError, match="nothing to resume"):
        train.work(arguments(data, tmp_path / "model", resume=True))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "model").glob("*.*")}


def test_fine_tuning_starts_from_the_weights_and_remembers_the_cases(
    data: Path, tmp_path: Path, write_case: Write
) -> None:
    train.work(arguments(data, tmp_path / "base", hold_out="0"))
    images = write_case("mine", folder=tmp_path / "own")
    (images / "mine_t2.nii.gz").write_bytes((images / "mine_t1.nii.gz").read_bytes())
    own = arguments(
        tmp_path / "own", tmp_path / "tuned",
        start=tmp_path / "base", size=None, hold_out="0", rate=1e-9, epochs=1,
    )  # fmt: skip
    train.work(own)
    base, tuned = (load_file(tmp_path / r / "nano.safetensors") for r in ("base", "tuned"))
    for name, before in base.items():
        if name.endswith("weight"):
            torch.testing.assert_close(tuned[name], before, atol=1e-6, rtol=1e-6)
    seen = read_card(tmp_path / "tuned").trained_on
    assert read_card(tmp_path / "base").trained_on < seen
    with pytest.raises(GliosliceError, match="is a nano, not a compact"):
        train.work(arguments(data, tmp_path / "x", start=tmp_path / "base", size="compact"))


def test_a_student_remembers_whom_it_learnt_from(three: Path, tmp_path: Path) -> None:
    train.work(arguments(three, tmp_path / "alone"))
    train.work(arguments(three, tmp_path / "teacher", seed=6, hold_out="a"))
    words = {"teacher": [tmp_path / "teacher"], "hold_out": "a,b"}
    with pytest.raises(GliosliceError, match="teacher: was trained on b, held out"):
        train.work(arguments(three, tmp_path / "student", **words))
    words["hold_out"] = "a"
    train.work(arguments(three, tmp_path / "student", **words))
    file = read_card(tmp_path / "teacher").content["files"]["nano.safetensors"]["sha256"]
    student = read_card(tmp_path / "student")
    assert student.content["training"]["teachers"] == [{"name": "nano", "sha256": file}]
    assert student.trained_on == read_card(tmp_path / "teacher").trained_on
    assert read_card(tmp_path / "alone").content["training"]["teachers"] == []
    given: dict[str, Any] = {"set": ["judge_every=2", "taught=0"], "hold_out": "a"}
    train.work(arguments(three, tmp_path / "deaf", teacher=words["teacher"], **given))
    train.work(arguments(three, tmp_path / "untaught", **given))
    deaf, untaught, taught = (
        load_file(tmp_path / run / "nano.safetensors") for run in ("deaf", "untaught", "student")
    )
    assert all(torch.equal(deaf[name], untaught[name]) for name in deaf)
    assert not torch.equal(deaf["head.weight"], taught["head.weight"])


def test_whoever_saw_a_case_through_a_teacher_has_seen_it(three: Path, tmp_path: Path) -> None:
    train.work(arguments(three, tmp_path / "teacher", hold_out="0", epochs=1))
    (few := tmp_path / "few").mkdir()
    (few / "a").symlink_to(three / "a")
    words = {"teacher": [tmp_path / "teacher"], "hold_out": "0", "epochs": 1}
    train.work(arguments(few, tmp_path / "student", **words))
    seen = [case["case"] for case in read_card(tmp_path / "student").content["training"]["cases"]]
    assert seen == ["a", "b", "c"]


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    recipe = Recipe(epochs=10, steps=10, warmup=0.1, rate=1.0)
    rates = [rate_at(recipe, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0, abs=1e-12)


def command(*words: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *launcher, "training/train.py", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


SHORT = ("--size", "nano", "--epochs", 2, "--steps", 2, "--batch", 2)


@pytest.mark.slow
def test_two_processes_by_torchrun(data: Path, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    weights = []
    for name, used, count in (("two", launcher, 2), ("again", launcher, 2), ("one", (), 1)):
        out = tmp_path / name
        words = ("--data", data, "--out", out, *SHORT, "--cache", tmp_path / "cache")
        done = command(*words, launcher=used)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch 2 ") == 1
        assert f"{count} x cpu" in done.stdout
        weights.append((out / "nano.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]  # the second process has its say


@pytest.mark.slow
def test_weights_and_biases_stay_on_this_machine(data: Path, tmp_path: Path) -> None:
    words = ("--data", data, "--out", tmp_path / "run", *SHORT, "--cache", tmp_path / "cache")
    done = command(*words, "--wandb")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_bad_words_end_with_one_line(tmp_path: Path) -> None:
    done = command("--data", tmp_path / "none", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'none'}: no such folder\n"
    assert "python training/train.py --data" in command("--help").stdout
