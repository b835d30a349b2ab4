import copy
import json
import tracemalloc

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix, random_array
from transformers import AutoTokenizer

import epifoundation
import epifoundation.inference.cell_run
import epifoundation.inference.embed
import epifoundation.inference.results
from epifoundation.inference import embed_cells, embed_file, load_model_and_tokenizer
from epifoundation.tokenization import CHROMOSOME_LENGTHS, PeakTokenizer

KEY = "X_epifoundation"
NUM_PEAKS_KEY = "epifoundation_num_peaks"


def embeddings_of(adata, *args, **options):
    embed_cells(adata, *args, **options)
    return adata.obsm[KEY]


def one_by_one(adata, model, tokenizer):
    """The embeddings by calling the model on one padded cell at a time."""
    rows = []
    for i in range(adata.n_obs):
        inputs = tokenizer(adata[i], return_tensors="pt", padding="max_length", max_length=70, check=False)
        with torch.no_grad():
            rows.append(model.base_model(**inputs).pooler_output[0].numpy())
    return np.array(rows)


def test_embeddings_are_those_of_single_cells_in_the_order_of_the_rows(adata, trained_model, tokenizer):
    embed_cells(adata, trained_model, tokenizer)
    assert adata.obsm[KEY].dtype == np.float32
    np.testing.assert_allclose(adata.obsm[KEY], one_by_one(adata, trained_model, tokenizer), atol=1e-5)
    shuffled = adata[::-1].copy()
    np.testing.assert_allclose(embeddings_of(shuffled, trained_model, tokenizer)[::-1], adata.obsm[KEY], atol=1e-5)


@pytest.mark.parametrize("options", [{"max_tokens_per_batch": 1}, {"max_entries_per_block": 50}])
def test_batches_and_blocks_do_not_show(adata, trained_model, tokenizer, options):
    whole = embeddings_of(adata.copy(), trained_model, tokenizer)
    np.testing.assert_allclose(embeddings_of(adata, trained_model, tokenizer, **options), whole, atol=1e-5)


def test_the_same_call_gives_the_same_bits(adata, trained_model, tokenizer, checkpoint):
    first = embeddings_of(adata.copy(), trained_model, tokenizer, max_peaks=10)
    second = embeddings_of(adata.copy(), checkpoint, max_peaks=10, device="cpu")
    assert np.array_equal(first, second)


def test_nothing_else_changes(adata, trained_model, tokenizer):
    before = adata.copy()
    state = {name: value.clone() for name, value in trained_model.state_dict().items()}
    trained_model.train()
    max_peaks = tokenizer.max_peaks
    try:
        embed_cells(adata, trained_model, tokenizer, key_added="X_mine", max_peaks=5)
        assert all(module.training for module in trained_model.modules())
    finally:
        trained_model.eval()
    assert all(torch.equal(value, state[name]) for name, value in trained_model.state_dict().items())
    assert tokenizer.max_peaks == max_peaks
    assert set(adata.obsm) == {"X_other", "X_mine"}
    assert set(adata.uns) == {"kept", "epifoundation"}
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(adata.X, part), getattr(before.X, part))
    assert list(adata.obs) == ["kind", NUM_PEAKS_KEY]
    pd.testing.assert_frame_equal(adata.obs[["kind"]], before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)


def test_uns_tells_how_they_were_made(adata, checkpoint, tokenizer):
    embed_cells(adata, str(checkpoint), max_peaks=20)
    told = adata.uns["epifoundation"]
    assert told["model"] == str(checkpoint)
    assert told["version"] == epifoundation.__version__
    assert told["key_added"] == KEY
    assert told["genome"] == "hg38"
    assert told["parameters"] == {"max_peaks": 20, "dtype": "torch.float32"}
    assert told["coverage"]["num_matched_peaks"] == 54
    assert told["coverage"]["num_truncated_cells"] > 0


@pytest.mark.parametrize("kind", ["dense", "csc", "zeros", "bools", "backed", "duplicates"])
def test_the_form_of_the_matrix_does_not_matter(adata, trained_model, tokenizer, peaks_file, kind):
    expected = embeddings_of(adata.copy(), trained_model, tokenizer)
    if kind == "dense":
        adata.X = adata.X.toarray()
    elif kind == "csc":
        adata.X = adata.X.tocsc()
    elif kind == "zeros":  # stored, but not open
        stored = csr_matrix(np.ones(adata.shape, dtype=np.float32))
        stored.data[:] = adata.X.toarray().ravel()
        adata.X = stored
    elif kind == "bools":
        adata.X = adata.X > 0
    elif kind == "duplicates":  # each peak twice, the second in another spelling
        names = [*adata.var_names, *(name.replace("-", "_") for name in adata.var_names)]
        adata = AnnData(csr_matrix(np.hstack([adata.X.toarray()] * 2)), adata.obs, pd.DataFrame(index=names))
    else:
        adata = anndata.read_h5ad(peaks_file, backed="r")
    np.testing.assert_allclose(embeddings_of(adata, trained_model, tokenizer), expected, atol=1e-6)


def test_a_cell_without_peaks_gets_the_embedding_of_cls_alone(adata, trained_model, tokenizer):
    embed_cells(adata, trained_model, tokenizer)
    alone = {"input_ids": torch.tensor([[2]]), "chromosome_ids": torch.tensor([[2]])}
    with torch.no_grad():
        expected = trained_model.base_model(**alone).pooler_output[0]
    np.testing.assert_allclose(adata.obsm[KEY][7], expected, atol=1e-6)
    assert adata.uns["epifoundation"]["coverage"]["num_empty_cells"] >= 1


def test_half_precision_models_give_float32(adata, trained_model, tokenizer):
    half = epifoundation.EpiFoundationModel(trained_model.config)
    half.load_state_dict(trained_model.base_model.state_dict())
    rough = embeddings_of(adata.copy(), half.to(torch.bfloat16), tokenizer)
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough, embeddings_of(adata, trained_model, tokenizer), atol=0.2)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_adapters_of_peft_take_part(adata, trained_model, tokenizer):
    peft = pytest.importorskip("peft")
    copy = epifoundation.EpiFoundationModel(trained_model.config)
    copy.load_state_dict(trained_model.base_model.state_dict())
    plain = embeddings_of(adata.copy(), copy.eval(), tokenizer)
    adapted = peft.get_peft_model(copy, peft.LoraConfig(target_modules=["up_proj"], init_lora_weights=False))
    assert np.abs(embeddings_of(adata, adapted, tokenizer) - plain).max() > 1e-3


@pytest.mark.parametrize(
    ("value", "message"), [(-1.0, "1 of .* values are negative"), (np.nan, "1 are NaN"), (np.inf, "1 are NaN")]
)
def test_values_that_are_no_counts_are_refused(adata, trained_model, tokenizer, value, message):
    adata.X.data[5] = value
    with pytest.raises(ValueError, match=message):
        embed_cells(adata, trained_model, tokenizer)
    assert KEY not in adata.obsm
    assert "epifoundation" not in adata.uns


def test_peaks_that_are_not_recognised_are_an_error(adata, trained_model, tokenizer):
    adata.var_names = [f"gene{i}" for i in range(60)]
    with pytest.raises(ValueError, match="gene0"):
        embed_cells(adata, trained_model, tokenizer)
    adata.var_names = [f"chr9:{i + 1}-{i + 2}" for i in range(60)]
    with pytest.raises(ValueError, match="none of the 60 peaks overlaps"):
        embed_cells(adata, trained_model, tokenizer)


def test_a_wrong_genome_is_named(adata, trained_model, tokenizer):
    adata.var_names = [f"chr1:{195_000_000 + i}-{195_000_001 + i}" for i in range(59)] + ["chrY:91000000-91744600"]
    with pytest.raises(ValueError, match="fit the chromosome lengths of mm10, not of hg38"):
        embed_cells(adata, trained_model, tokenizer)


def test_open_peaks_must_be_known_not_peaks_alone(adata, trained_model, tokenizer):
    known = np.arange(60) % 10 > 0
    adata.X = csr_matrix(adata.X.toarray() * ~known)
    with pytest.raises(ValueError, match=r"none of the .* open peaks overlaps a peak of the vocabulary"):
        embed_cells(adata, trained_model, tokenizer)
    adata.X = csr_matrix(adata.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="no cell has an open peak"):
        embed_cells(adata, trained_model, tokenizer)


@pytest.mark.parametrize("block", [10, 10**6])
def test_low_coverage_warns_early_in_a_long_file_and_at_the_end(adata, trained_model, tokenizer, block):
    adata.var_names = [n if i % 4 == 1 else f"chr9:{i + 1}-{i + 2}" for i, n in enumerate(adata.var_names)]
    with pytest.warns(UserWarning, match="less than half of the open peaks") as caught:
        embed_cells(adata, trained_model, tokenizer, max_entries_per_block=block)
    early = [str(warning.message).startswith("in the first ") for warning in caught]
    assert early == ([True, False] if block == 10 else [False])
    assert caught[0].filename == __file__


@pytest.mark.parametrize("options", [{"key_added": ""}, {"key_added": "a/b"}, {"max_tokens_per_batch": 0}])
def test_options_that_make_no_sense_are_refused(adata, trained_model, tokenizer, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        embed_cells(adata, trained_model, tokenizer, **options)


def test_a_mudata_gets_them_in_its_peaks(adata, trained_model, tokenizer, tmp_path):
    expected = embeddings_of(adata.copy(), trained_model, tokenizer)
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData({"atac": adata, "rna": AnnData(np.ones((40, 2)), obs=pd.DataFrame(index=adata.obs_names))})
        data.write(tmp_path / "m.h5mu")
        embed_cells(data, trained_model, tokenizer)
        embed_file(tmp_path / "m.h5mu", trained_model, tmp_path / "out.h5mu", tokenizer)
        read = mudata.read_h5mu(tmp_path / "out.h5mu")
    for result in (data, read):
        np.testing.assert_array_equal(result["atac"].obsm[KEY], expected)
        assert KEY not in result["rna"].obsm
    with pytest.raises(ValueError, match=r"expected \.h5mu or \.parquet"):
        embed_file(tmp_path / "m.h5mu", trained_model, tmp_path / "out.h5ad", tokenizer)


def test_a_file_gives_what_memory_gives(adata, peaks_file, checkpoint, tmp_path):
    output = tmp_path / "out.h5ad"
    coverage = embed_file(peaks_file, checkpoint, output, max_entries_per_block=200)
    embed_cells(adata, checkpoint)
    read = anndata.read_h5ad(output)
    np.testing.assert_allclose(read.obsm[KEY], adata.obsm[KEY], atol=1e-5)
    assert coverage.num_cells == 40
    assert read.uns["kept"] == 1
    np.testing.assert_array_equal(read.obsm["X_other"], adata.obsm["X_other"])
    pd.testing.assert_frame_equal(read.obs, adata.obs, check_categorical=False, check_dtype=False)
    stored, made = read.uns["epifoundation"], adata.uns["epifoundation"]
    assert stored["coverage"] == made["coverage"]
    assert {k: v for k, v in stored.items() if isinstance(v, str)} == {
        k: v for k, v in made.items() if isinstance(v, str)
    }
    with h5py.File(peaks_file) as before, h5py.File(output) as after:
        for part in ("data", "indices", "indptr"):
            assert before["X"][part][:].tobytes() == after["X"][part][:].tobytes()


def test_a_file_without_obsm_and_uns_gets_them(adata, checkpoint, tmp_path):
    AnnData(adata.X, adata.obs, pd.DataFrame(index=adata.var_names)).write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        for group in ("obsm", "uns"):
            file.pop(group, None)
    embed_file(tmp_path / "a.h5ad", checkpoint, tmp_path / "out.h5ad")
    assert set(anndata.read_h5ad(tmp_path / "out.h5ad").obsm) == {KEY}


def test_the_input_may_be_replaced_again_and_again(peaks_file, checkpoint, tmp_path):
    with pytest.raises(FileExistsError, match="--overwrite"):
        embed_file(peaks_file, checkpoint, peaks_file)
    for key in (KEY, "X_second", KEY):
        embed_file(peaks_file, checkpoint, peaks_file, overwrite=True, key_added=key)
    assert set(anndata.read_h5ad(peaks_file).obsm) == {"X_other", KEY, "X_second"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["cells.h5ad"]


def test_parquet_holds_the_same(adata, peaks_file, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(epifoundation.inference.results, "ROWS_PER_GROUP", 7)
    embed_file(peaks_file, checkpoint, tmp_path / "out.parquet")
    embed_cells(adata, checkpoint)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["cell", NUM_PEAKS_KEY, *(f"epifoundation_{i}" for i in range(16))]
    assert table["cell"].to_pylist() == list(adata.obs_names)
    assert table[NUM_PEAKS_KEY].to_pylist() == adata.obs[NUM_PEAKS_KEY].tolist()
    values = table.to_pandas().drop(columns=["cell", NUM_PEAKS_KEY])
    assert set(values.dtypes) == {np.dtype("float32")}
    np.testing.assert_array_equal(values.to_numpy(), adata.obsm[KEY])
    told = json.loads(table.schema.metadata[b"epifoundation"])
    assert told["coverage"]["num_cells"] == 40


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ("cells.h5ad", FileExistsError, "--overwrite"),
        ("none/out.h5ad", FileNotFoundError, "is not a folder; make it first"),
        ("out.csv", ValueError, r"expected \.h5ad or \.parquet"),
    ],
)
def test_the_output_is_checked_before_the_work(peaks_file, tmp_path, monkeypatch, output, error, message):
    monkeypatch.setattr(epifoundation.inference.embed, "prepare_run", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(error, match=message):
        embed_file(peaks_file, "no model", tmp_path / output)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cells.h5ad"]


def test_an_error_or_interruption_leaves_nothing(peaks_file, checkpoint, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    for module, name in (("cell_run", "compute_batches"), ("results", "_write_copy")):
        with monkeypatch.context() as patched:
            patched.setattr(f"epifoundation.inference.{module}.{name}", interrupted)
            with pytest.raises(KeyboardInterrupt):
                embed_file(peaks_file, checkpoint, tmp_path / "out.h5ad")
    assert [entry.name for entry in tmp_path.iterdir()] == ["cells.h5ad"]


def test_progress_shows_only_when_asked_for_and_work_is_long(adata, trained_model, tokenizer, capsys, monkeypatch):
    embed_cells(adata, trained_model, tokenizer)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(epifoundation.inference.cell_run, "SECONDS_WITHOUT_PROGRESS", 0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    embed_cells(adata, trained_model, tokenizer, show_progress=False)
    assert capsys.readouterr().err == ""
    embed_cells(adata, trained_model, tokenizer)
    assert "40/40" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_file(trained_model, tokenizer, tmp_path):
    def peak_memory(num_cells):
        matrix = csr_matrix(random_array((num_cells, 60), density=0.5, rng=np.random.default_rng(0)))
        path = tmp_path / f"{num_cells}.h5ad"
        AnnData(matrix, var=pd.DataFrame(index=tokenizer.vocabulary.names())).write_h5ad(path)
        tracemalloc.start()
        try:
            embed_file(path, trained_model, tmp_path / f"{num_cells}.parquet", tokenizer, max_entries_per_block=5_000)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_memory(200)
    # Five times the cells; what grows is their names and embeddings, 16 numbers each here.
    assert peak_memory(2_500) < 2 * peak_memory(500)


def test_a_tokenizer_of_ones_own_counts_for_models_in_memory(adata, trained_model):
    other = PeakTokenizer(epifoundation.tokenization.PeakVocabulary.from_names(["chr1:1-2"]))
    with pytest.raises(ValueError, match="do not belong together"):
        embed_cells(adata, trained_model, other)


def test_peaks_of_another_genome_are_refused_although_some_overlap_by_chance(adata, trained_model, tokenizer):
    # Four in ten overlap; others lie where only the longer chr1 of mouse has room for them, or nowhere known.
    beyond = CHROMOSOME_LENGTHS["hg38"]["chr19"] + 10
    assert beyond + 500 < CHROMOSOME_LENGTHS["mm10"]["chr19"]
    names = list(adata.var_names)
    adata.var_names = [n if i % 5 < 2 else f"chr19:{beyond + i}-{beyond + i + 1}" for i, n in enumerate(names)]
    with pytest.raises(ValueError, match=r"no more than by chance: .*not of hg38"):
        embed_cells(adata, trained_model, tokenizer)


def test_embeddings_that_are_not_finite_are_an_error(adata, trained_model, tokenizer):
    broken = copy.deepcopy(trained_model)
    with torch.no_grad():
        next(broken.parameters())[:] = float("nan")
    with pytest.raises(ValueError, match="not finite: its weights are damaged"):
        embed_cells(adata, broken, tokenizer)


def test_a_tokenizer_that_came_with_its_own_code_works(adata, trained_model, tokenizer, tmp_path):
    trained_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    foreign = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(foreign) is not type(tokenizer)
    embed_cells(adata, trained_model, foreign, key_added="foreign")
    embed_cells(adata, trained_model, tokenizer, key_added="own")
    np.testing.assert_array_equal(adata.obsm["foreign"], adata.obsm["own"])


def test_precision_is_that_asked_for_and_single_on_a_cpu(trained_model, tokenizer, tmp_path):
    copy.deepcopy(trained_model).to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_model_and_tokenizer(tmp_path, device="cpu")[0].dtype == torch.float32
    assert load_model_and_tokenizer(tmp_path, device="cpu", dtype="bfloat16")[0].dtype == torch.bfloat16
    with pytest.raises(ValueError, match="there is no precision 'half-ish'"):
        load_model_and_tokenizer(tmp_path, device="cpu", dtype="half-ish")


def test_many_cells_without_usable_peaks_are_a_warning(adata, trained_model, tokenizer):
    adata.X = adata.X.multiply(np.arange(40)[:, None] >= 10).tocsr()
    with pytest.warns(UserWarning, match=r"10 of 40 cells have no open peak .* look like a cluster"):
        embed_cells(adata, trained_model, tokenizer)
    assert adata.uns["epifoundation"]["coverage"]["num_empty_cells"] == 10
