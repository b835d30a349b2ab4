import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from epifoundation.dataset_builders import MiniAtlas
from epifoundation.dataset_builders.tokenized.mini_atlas import SUBSETS
from epifoundation.dataset_builders.tokenized.paired_cells import paired_cells

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(multiome, tmp_path) -> Path:
    """A small folder of the official layout: two subsets that differ."""
    folder = tmp_path / "MiniAtlas"
    folder.mkdir()
    for subset, cells in (("bmmc", slice(0, 40)), ("pbmc", slice(20, 60))):
        for modality, data in zip(("atac", "rna"), multiome, strict=True):
            part = data[cells].copy()
            part.obs = multiome[0].obs[cells].copy()
            part.write_h5ad(folder / f"{subset}_atlas_{modality}.h5ad", compression="gzip")
    return folder


def prepared(builder):
    builder.download_and_prepare()
    return builder.as_dataset("train")


def expected(multiome, tokenizer, cells):
    atac, rna = (data[cells] for data in multiome)
    return paired_cells(atac, rna, tokenizer, cell_type_key="annot", batch_key="batch").to_list()


def test_a_subset_is_read_from_a_folder(multiome, tokenizer, folder, tmp_path):
    builder = MiniAtlas("bmmc", tokenizer=tokenizer, data_dir=folder, cache_dir=tmp_path / "cache")
    cells = prepared(builder)
    assert cells.to_list() == expected(multiome, tokenizer, slice(0, 40))
    assert cells.features["cell_type"].names == ["B", "NK", "T"]
    assert (builder.subset, builder.config.name, builder.dataset_name) == ("bmmc", "bmmc", "mini_atlas")
    assert list(builder.as_streaming_dataset("train")) == cells.to_list()


def test_subsets_do_not_share_a_cache(multiome, tokenizer, folder, tmp_path):
    bmmc, pbmc = (
        prepared(MiniAtlas(subset, tokenizer=tokenizer, data_dir=folder, cache_dir=tmp_path / "cache"))
        for subset in ("bmmc", "pbmc")
    )
    assert bmmc.to_list() == expected(multiome, tokenizer, slice(0, 40))
    assert pbmc.to_list() == expected(multiome, tokenizer, slice(20, 60))


def test_peaks_alone_need_no_file_of_genes(tokenizer, folder, tmp_path):
    (folder / "pbmc_atlas_rna.h5ad").unlink()
    builder = MiniAtlas("pbmc", tokenizer=tokenizer, data_dir=folder, atac_only=True, cache_dir=tmp_path / "cache")
    assert prepared(builder).column_names == ["barcode", "input_ids", "cell_type", "batch"]


def test_another_key_can_be_chosen(tokenizer, folder, tmp_path):
    options = {"data_dir": folder, "cache_dir": tmp_path / "cache", "donor_key": "donor", "batch_key": None}
    builder = MiniAtlas("pbmc", tokenizer=tokenizer, cell_type_key="donor", **options)
    assert builder.info.features["cell_type"].names == [f"donor{i}" for i in range(5)]
    assert "batch" not in builder.info.features
    assert "donor" in builder.info.features


def test_a_missing_annot_names_the_columns(multiome, tokenizer, tmp_path):
    for modality, data in zip(("atac", "rna"), multiome, strict=True):
        part = data.copy()
        part.obs = multiome[0].obs[["batch"]].copy()
        part.write_h5ad(tmp_path / f"full_atlas_{modality}.h5ad")
    with pytest.raises(ValueError, match=r"obs has no column 'annot'; it has \['batch'\]: .* cell_type_key="):
        MiniAtlas("full", tokenizer=tokenizer, data_dir=tmp_path, cache_dir=tmp_path / "cache")


def test_missing_files_are_named(tokenizer, folder, tmp_path):
    message = r"MiniAtlas has no kidney_atlas_atac\.h5ad and no kidney_atlas_rna\.h5ad; found bmmc_atlas_atac\.h5ad, "
    with pytest.raises(FileNotFoundError, match=message):
        MiniAtlas("kidney", tokenizer=tokenizer, data_dir=folder)
    with pytest.raises(FileNotFoundError, match="found nothing"):
        MiniAtlas("kidney", tokenizer=tokenizer, data_dir=tmp_path / "no folder")


def test_an_unknown_subset_is_refused(tokenizer):
    assert SUBSETS == ("full", "bmmc", "kidney", "pbmc")
    with pytest.raises(ValueError, match="no subset 'lung': expected one of full, bmmc, kidney, pbmc"):
        MiniAtlas("lung", tokenizer=tokenizer)


def test_without_a_connection_the_file_is_named(tokenizer, tmp_path):
    # The tests run with HF_HUB_OFFLINE=1.
    message = r"cannot download bmmc_atlas_atac\.h5ad of the dataset repository UCSC-VLAA/MiniAtlas .*\n.* as data_dir"
    with pytest.raises(OSError, match=f"(?s){message}"):
        MiniAtlas("bmmc", tokenizer=tokenizer, download_dir=tmp_path)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download of files needs."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        prefix = "/datasets/UCSC-VLAA/MiniAtlas/resolve/main/"
        file = self.folder / self.path.removeprefix(prefix)
        is_there = self.path.startswith(prefix) and file.is_file()
        content = file.read_bytes() if is_there else b""
        self.send_response(200 if is_there else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        if not is_there:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint(folder) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubOfFolder", (Hub,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


DOWNLOAD = """
import sys
from epifoundation.dataset_builders import MiniAtlas
tokenizer, cache = sys.argv[1:]
builder = MiniAtlas("pbmc", tokenizer=tokenizer, cache_dir=cache, download_dir=cache + "/hub")
builder.download_and_prepare()
builder.as_dataset("train").to_json(cache + "/rows.json")
try:
    MiniAtlas("kidney", tokenizer=tokenizer, cache_dir=cache, download_dir=cache + "/hub")
except OSError as error:
    print(error)
"""


def test_files_are_downloaded_from_the_hub_under_their_names(multiome, tokenizer, endpoint, tmp_path):
    # The address is read when huggingface_hub is imported, so this needs a process of its own.
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "cache").mkdir()
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", DOWNLOAD, str(tmp_path / "tokenizer"), str(tmp_path / "cache")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    rows = [json.loads(line) for line in (tmp_path / "cache" / "rows.json").read_text().splitlines()]
    assert rows == expected(multiome, tokenizer, slice(20, 60))
    assert "cannot download kidney_atlas_atac.h5ad" in ran.stdout
    assert "pass their folder as data_dir" in ran.stdout
