"""How a study begins and ends."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wm
from wm.errors import BadInputError
from wm.experiments.studies import deadline, race, rival_cem, rival_cem_lewm
from wm.experiments.studies.launch import MISSED, judge, launch
from wm.experiments.studies.success_settings import SETTINGS

MAKEFILE = Path(wm.__file__).parents[1] / "Makefile"
makefile = pytest.mark.skipif(not MAKEFILE.exists(), reason="installed without its Makefile")


@pytest.mark.parametrize("error", [BadInputError("no\nsuch thing"), OSError(28, "No space left on device")])
def test_what_a_user_can_cause_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["study"])
    with pytest.raises(SystemExit) as stopped:
        launch(main)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and err.startswith("wm: error: ") and err.count("\n") == 1


@pytest.mark.parametrize(("met", "code"), [(True, 0), (False, MISSED)])
def test_a_verdict_is_no_traceback(met: bool, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        judge(met)

    monkeypatch.setattr(sys, "argv", ["study"])
    with pytest.raises(SystemExit) as stopped:
        launch(main)
    assert (stopped.value.code or 0) == code != 1


@makefile
def test_the_makefile_names_searches_that_there_are_and_the_code_of_a_verdict() -> None:
    text = MAKEFILE.read_text().replace("$\\\n\t", "")
    assert re.search(r"^MISSED := (\d+)$", text, re.M)[1] == str(MISSED)  # type: ignore[index]
    for variable in ("SEARCHES", "PATCH_SEARCHES"):
        names = re.search(rf"^{variable} := (.*)$", text, re.M)[1].split(",")  # type: ignore[index]
        assert len(names) > 2 and set(names) <= SETTINGS.keys()


@makefile
@pytest.mark.parametrize("given", ["STABLE_WORLDMODEL=a", "LEWM=b"])
def test_bench_wants_both_of_the_folders_that_go_together(given: str) -> None:
    command = ["make", "-n", "-f", str(MAKEFILE), "bench", given]
    said = subprocess.run(command, cwd=MAKEFILE.parent, capture_output=True, text=True, check=True).stdout
    assert "STABLE_WORLDMODEL and LEWM go together" in said
    command += ["LEWM=b", "STABLE_WORLDMODEL=a"]
    said = subprocess.run(command, cwd=MAKEFILE.parent, capture_output=True, text=True, check=True).stdout
    assert "--rival a --rival-model b" in said


def test_a_processor_is_told_by_its_name_and_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: A Quick One\nflags\t: avx2\n")
    monkeypatch.setattr(race, "CPUINFO", info)
    monkeypatch.setattr(race.torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert race.processor() == "A Quick One (AVX2)"
    info.unlink()
    monkeypatch.setattr(race.platform, "processor", lambda: "arm")
    assert race.processor() == "arm (AVX2)"


@pytest.mark.parametrize("study", [deadline, rival_cem, rival_cem_lewm])
def test_a_file_that_cannot_be_written_is_known_before_anything_is_measured(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(study, "machine", lambda threads: pytest.fail("measured"))
    for out in (tmp_path / "file" / "result.json", tmp_path):
        monkeypatch.setattr(sys, "argv", ["study", "--out", str(out)])
        with pytest.raises(SystemExit) as stopped:
            launch(study.main)
        err = capsys.readouterr().err
        assert stopped.value.code == 2 and err.startswith("wm: error: cannot write ") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
