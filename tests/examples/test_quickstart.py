import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.slow
def test_the_quickstart_runs_from_anywhere_and_leaves_its_results(tmp_path: Path) -> None:
    options = ["--splits", "1", "--epochs", "1", "--hidden-size", "16", "--max-peaks", "30", "--max-genes", "40"]
    run = subprocess.run(
        [sys.executable, EXAMPLES / "quickstart.py", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "embeddings equal" in run.stdout
    results = tmp_path / "quickstart_output"
    assert {path.name for path in results.iterdir()} >= {"comparison.md", "embedding.png", "checkpoint"}
    assert "EpiFoundation, aligned to genes" in (results / "comparison.md").read_text()
