from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import edgecnn
from edgecnn.errors import ConfigError, DataError, WeightsError
from edgecnn.source.request import make_request
from edgecnn.training.train import Training, train
from edgecnn.zoo import build, make_spec
from edgecnn.zoo.about import about


@pytest.fixture(scope="module")
def trained(striped_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return learn(striped_folder, tmp_path_factory.mktemp("out") / "lenet", epochs=100)


def learn(data: Path, output: Path, **options: Any) -> Training:
    given = {"batch": 16, "learning_rate": 0.05, "ema_steps": 5, "output": output} | options
    return train("lenet5", data, **given)


def test_it_leaves_weights_and_a_record_and_no_state(trained: Training) -> None:
    assert sorted(path.name for path in trained.folder.iterdir()) == ["training.json", "weights.safetensors"]
    record = json.loads((trained.folder / "training.json").read_text())
    assert record["train"]["images"] + record["held_out"]["images"] == 60
    assert record["top1_percent"] == trained.top1_percent >= 90
    low, high = record["top1_interval_percent"]
    assert low < record["top1_percent"] <= high
    assert len(record["epochs"]) == 100
    assert record["network"]["classes"] == 2


def test_the_checkpoint_says_what_it_is(trained: Training) -> None:
    described = about(trained.weights)
    assert described["labels"] == ["level", "upright"]
    assert described["network"]["name"] == "lenet5"
    request = make_request("lenet", weights=trained.weights)
    assert request.spec is not None
    assert request.spec.classes == 2
    assert make_request("lenet", weights=trained.weights, classes=3).spec.classes == 3  # type: ignore[union-attr]
    # Another network hears what is wrong from the weights, not from a guess.
    assert make_request("alexnet", weights=trained.weights).spec.classes == 1000  # type: ignore[union-attr]


def test_its_weights_are_exported_with_classes_and_preparation(trained: Training, tmp_path: Path) -> None:
    [artifact] = edgecnn.export(
        "lenet", ["onnxruntime"], weights=trained.weights, output=tmp_path, measure=False
    )
    assert (artifact.path / "labels.txt").read_text() == "level\nupright\n"
    assert artifact.manifest["weights"]["top1_percent"] == trained.top1_percent
    assert "stripes" in artifact.manifest["weights"]["description"]


def test_a_finished_training_is_not_overwritten(trained: Training, striped_folder: Path) -> None:
    with pytest.raises(ConfigError, match="finished training") as caught:
        learn(striped_folder, trained.folder)
    assert "--force" in str(caught.value.hint)


def test_another_task_begins_from_it(trained: Training, striped_folder: Path, tmp_path: Path) -> None:
    again = learn(striped_folder, tmp_path / "again", start=trained.weights, epochs=2, freeze=2)
    assert again.top1_percent >= 90
    assert again.record["recipe"]["frozen_epochs"] == 2
    assert again.record["first_weights_sha256"] is not None


def test_a_checkpoint_of_another_architecture_is_refused(striped_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file(build(make_spec("resnet20", classes=2)).state_dict(), other)
    with pytest.raises(WeightsError, match="does not fit lenet5") as caught:
        learn(striped_folder, tmp_path / "out", start=other, epochs=1)
    assert "resnet20" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_a_teacher_says_which_network_it_is(trained: Training, striped_folder: Path, tmp_path: Path) -> None:
    taught = learn(striped_folder, tmp_path / "taught", distill=trained.weights, epochs=2)
    assert taught.record["teacher_sha256"] is not None
    silent = tmp_path / "silent.safetensors"
    save_file(build(make_spec("lenet5", classes=2)).state_dict(), silent)
    with pytest.raises(WeightsError, match="which network"):
        learn(striped_folder, tmp_path / "b", distill=silent, epochs=1)
    with pytest.raises(ConfigError, match="cannot teach"):
        learn(striped_folder, tmp_path / "c", distill=trained.weights, resolution=28, epochs=1)


def test_nothing_to_freeze_in_random_weights(striped_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to freeze"):
        learn(striped_folder, tmp_path / "out", freeze=3)


def test_one_class_teaches_nothing(striped_folder: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone"
    lone.mkdir()
    (lone / "level").symlink_to(striped_folder / "level")
    with pytest.raises(DataError):
        learn(lone, tmp_path / "out")


def test_a_part_holds_nothing_out(striped_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes the whole set"):
        learn(Path(f"{striped_folder}:train"), tmp_path / "out")


def test_a_folder_of_something_else_stays(striped_folder: Path) -> None:
    with pytest.raises(ConfigError, match="no training wrote: level, upright"):
        learn(striped_folder, striped_folder)


def test_two_trainings_in_one_folder(striped_folder: Path, tmp_path: Path) -> None:
    def meanwhile(description: str, done: float, total: float | None) -> None:
        if description.startswith("epoch 2"):
            with pytest.raises(ConfigError, match="another training is at work"):
                learn(striped_folder, tmp_path / "out", epochs=2, seed=1)

    first = learn(striped_folder, tmp_path / "out", epochs=2, progress=meanwhile)
    assert first.record["recipe"]["seed"] == 0
    assert sorted(path.name for path in first.folder.iterdir()) == ["training.json", "weights.safetensors"]
