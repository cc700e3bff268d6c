from __future__ import annotations

import ast
import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml

from cli import main
from pipelines.config import COMMANDS, InspectConfig, RebalanceConfig, TrainConfig
from pipelines.config_files import UNSET, differences, from_dict, read_config_file, to_dict, to_yaml
from pipelines.config_groups import DataConfig, ObjectiveConfig, OptimizationConfig
from pipelines.config_use import EvaluateConfig
from rebalance.errors import InputError

ROOT = Path(__file__).parents[2]
DIGITS = DataConfig(data="digits")
TRAIN = TrainConfig(data=DIGITS)


def default(cls: type) -> Any:
    """A config with nothing but what it must have."""
    samples = {DataConfig: DIGITS, Path: Path("runs/a"), tuple[Path, ...]: (Path("runs/a"),)}
    missing = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    return cls(**{name: samples[get_type_hints(cls)[name]] for name in missing})


def other(hint: Any, value: Any) -> Any:
    """A value of type `hint` that is not `value`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is types.UnionType or origin is typing.Union:
        return other(next(argument for argument in arguments if argument is not type(None)), value)
    if origin is Literal:
        return next(choice for choice in reversed(arguments) if choice != value)
    if origin is tuple:
        first = other(arguments[0], None)
        return (first, *[item for item in (other(arguments[0], first),) if item != first])
    samples = {bool: not value, int: 7, float: 0.3125, str: "x=y z", Path: Path("a b/ü.c")}
    return samples[hint]


def changed(config: Any) -> Any:
    """`config` with every setting, at every depth, at another value than its default."""
    hints = get_type_hints(type(config))
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return type(config)(
        **{
            name: changed(value) if dataclasses.is_dataclass(value) else other(hints[name], value)
            for name, value in values.items()
        }
    )


def fields(config: Any) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """The settings of a config and of its groups, with their values."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields(value)
        else:
            yield field, value


def leaves(config: Any) -> Iterator[tuple[str, Any]]:
    """Likewise, with their names."""
    return ((field.name, value) for field, value in fields(config))


def test_every_setting_is_changed_by_the_helper_of_these_tests() -> None:
    for cls in COMMANDS.values():
        pairs = zip(leaves(default(cls)), leaves(changed(default(cls))), strict=True)
        assert [name for (name, before), (_, after) in pairs if before == after] == []


# There and back


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("change", [default, lambda cls: changed(default(cls))], ids=["defaults", "all changed"])
def test_yaml_gives_the_config_back(command: str, change: Any) -> None:
    config = change(COMMANDS[command])
    assert from_dict(COMMANDS[command], yaml.safe_load(to_yaml(config))) == config


@pytest.mark.parametrize("command", COMMANDS)
def test_flat_names_with_dashes_give_the_config_back(command: str) -> None:
    config = changed(default(COMMANDS[command]))
    flat = {name.replace("_", "-"): _plain(value) for name, value in leaves(config)}
    assert from_dict(COMMANDS[command], flat) == config


def _plain(value: Any) -> Any:
    return (
        [str(item) for item in value] if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_no_two_settings_of_a_command_share_a_name(command: str) -> None:
    names = [name for name, _ in leaves(default(COMMANDS[command]))]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("values", [{"arms": []}, {"generator_channels": []}, {"skip_gate": []}])
def test_an_empty_list_is_no_default(values: dict[str, Any]) -> None:
    config = from_dict(RebalanceConfig, {"data": "digits", **values})
    assert dict(leaves(config))[next(iter(values))] == ()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("amp: no", "amp", "no"),
        ("amp: bf16", "amp", "bf16"),
        ("lr: 1e-3", "lr", 1e-3),
        ("lr: null", "lr", None),
        ("lr: 1", "lr", 1.0),
        ("resume: false", "resume", False),
        ("compile: yes", "compile", True),
        ("rsg: false", "rsg", False),
        ("rsg: true", "rsg", True),
        ("seed: -1", "seed", -1),
        ("experiment: 2024-01-01", "experiment", "2024-01-01"),
        ("class_weight: [a b=1, ü=2]", "class_weight", ("a b=1", "ü=2")),
        ("option: max_margin=-0.4", "option", ("max_margin=-0.4",)),
        ("option: {max_margin: 0.4, fused: true}", "option", ("max_margin=0.4", "fused=True")),
        ("option:\n- max_margin: 0.4\n- scale=20", "option", ("max_margin=0.4", "scale=20")),
        ("class_weight: {a b: 1, 7: 2.5}", "class_weight", ("a b=1", "7=2.5")),
        ("objective:\n  class_weight:\n    cat: 1", "class_weight", ("cat=1",)),
        ("option: {}", "option", ()),
        ("optimization:\nplace:\n  device: cpu", "device", "cpu"),
        ("optimization: {opt: adamw}", "opt", "adamw"),
        ("image-size: 32", "image_size", 32),
    ],
)
def test_yaml_as_people_write_it(text: str, name: str, value: Any) -> None:
    found = dict(leaves(from_dict(TrainConfig, yaml.safe_load(f"data: digits\n{text}"))))[name]
    assert (found, type(found)) == (value, type(value))


def test_data_may_be_left_to_the_command_line() -> None:
    assert from_dict(TrainConfig, {"seed": 3}).data.data == UNSET
    assert from_dict(EvaluateConfig, {}).run == Path(UNSET)
    assert from_dict(TrainConfig, {"data": {"data": "digits"}}) == from_dict(TrainConfig, {"data": "digits"}) == TRAIN


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "settings of TrainConfig; got 'epoch'; did you mean 'epochs'"),
        ({"optimization": {"learning_rate": 3}}, "got 'learning_rate'"),
        ({"optimisation": {"lr": 3}}, "settings of TrainConfig; got 'optimisation'"),
        ({"optimization": 3}, "settings of TrainConfig; got 'optimization'"),
        ({3: 4}, "settings of TrainConfig; got '3'"),
        ({"epochs": 1.5, "seed": 3}, "valid settings of TrainConfig; got epochs=1.5; epochs is a whole number$"),
        ({"epochs": True}, "got epochs=True"),
        ({"epochs": [1, 2]}, r"got epochs=\[1, 2\]"),
        ({"lr": "fast"}, "got lr='fast'"),
        ({"lr": {"a": 1}}, "got lr={'a': 1}"),
        ({"resume": "false"}, "got resume='false'; resume is true or false"),
        ({"optimization": {"updates": "drei"}}, "got updates='drei'; updates is a whole number or null"),
        ({"opt": "adam", "seed": "x"}, "got opt='adam', seed='x'; opt is one of sgd, adamw; seed is a whole number"),
        ({"amp": True}, "got amp=True; amp is one of auto, no, bf16, fp16"),
    ],
)
def test_unknown_names_and_wrong_types_are_named(
    values: dict[Any, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=message):
        from_dict(TrainConfig, {"data": "digits", **values})
    assert capsys.readouterr() == ("", "")  # one error, told by the caller


# Files


def test_a_saved_config_is_a_config_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    config = dataclasses.replace(TRAIN, seed=5, data=DataConfig(data="Vögel"))
    path.write_text("command: train\n" + to_yaml(config), encoding="utf-8")
    assert from_dict(TrainConfig, read_config_file(path)) == config
    assert "Vögel" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a config file; got no such file"),
        (b"a: [1", "a YAML file; got"),
        (b"\xff\xfe\x00", "a YAML file; got"),
        (b"- a", "names and values; got list in"),
        (b"", "names and values; got NoneType in"),
        (b"!!python/object/apply:os.getcwd []", "a YAML file; got"),
    ],
)
def test_files_that_are_no_config_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_config_file(path)


# What differs


def test_differences_are_named_by_their_place() -> None:
    new = dataclasses.replace(TRAIN, seed=1, optimization=OptimizationConfig(lr=0.1))
    assert differences(to_dict(TRAIN), to_dict(new)) == ["optimization.lr: None → 0.1", "seed: 0 → 1"]
    assert differences(to_dict(new), to_dict(new)) == []


def test_settings_that_a_version_added_or_dropped_are_differences() -> None:
    assert differences({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}) == ["a: 1 → None", "b.c: 2 → None", "b.d: None → 3"]
    assert differences({}, {"a": None}) == []


def test_a_list_from_yaml_equals_the_tuple_it_was() -> None:
    config = RebalanceConfig(data=DIGITS, arms=("ce", "synthetic"), objective=ObjectiveConfig(option=("a=1",)))
    assert differences(yaml.safe_load(to_yaml(config)), to_dict(config)) == []


@pytest.mark.parametrize("name", ["workers", "cache_gb", "device", "download", "place", "resume"])
def test_settings_without_effect_are_no_differences(name: str) -> None:
    assert differences({name: 1, "x": {name: 1}}, {name: 2, "x": {name: 2}}) == []


# No dead settings


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_is_a_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    cls = COMMANDS[command]
    given = list(zip(fields(changed(default(cls))), fields(default(cls)), strict=True))
    words = [word for (field, value), (_, before) in given for word in _words(field, value, before)]
    assert main([command, *words, "--print-config"]) == 0
    found = dict(leaves(from_dict(cls, yaml.safe_load(capsys.readouterr().out))))
    assert found == {field.name: value for (field, value), _ in given}


def _words(field: dataclasses.Field[Any], value: Any, before: Any) -> list[str]:
    """A setting as a user types it."""
    flag = "--" + field.name.replace("_", "-")
    items = [str(item) for item in value] if isinstance(value, tuple) else [str(value)]
    if "Positional" in str(field.type):
        return items
    if isinstance(value, bool) and before is not None:
        return [flag if value else flag.replace("--", "--no-", 1)]
    return [word for item in items for word in (flag, item)] if "UseAppend" in str(field.type) else [flag, *items]


def test_every_setting_is_read_somewhere() -> None:
    read = set()
    for path in [*(ROOT / "pipelines").glob("*.py"), ROOT / "cli.py"]:
        if path.name in ("config.py", "config_groups.py", "config_use.py", "config_files.py"):
            continue
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        read |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    names = {name for cls in COMMANDS.values() for name, _ in leaves(default(cls))}
    assert names > {"epochs", "kappa", "guidance"}
    assert sorted(names - read) == []


def test_every_setting_says_what_it_is() -> None:
    """The help text of a flag is the docstring under its field."""
    for name in ("config.py", "config_groups.py", "config_use.py"):
        for cls in ast.parse((ROOT / "pipelines" / name).read_text(encoding="utf-8")).body:
            if not isinstance(cls, ast.ClassDef):
                continue
            for field, after in zip(cls.body, [*cls.body[1:], ast.Pass()], strict=True):
                group = isinstance(field, ast.AnnAssign) and ast.unparse(field.annotation).endswith("Config")
                if isinstance(field, ast.AnnAssign) and not group:
                    assert isinstance(after, ast.Expr), ast.unparse(field)
                    assert isinstance(after.value, ast.Constant), ast.unparse(field)


def test_inspect_has_no_training_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="settings of InspectConfig; got 'epochs'"):
        from_dict(InspectConfig, {"data": "digits", "epochs": 3})
    capsys.readouterr()
