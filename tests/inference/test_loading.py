import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from epifoundation import EpiFoundationConfig, EpiFoundationForPeakToGeneAlignment, EpiFoundationModel
from epifoundation.inference import load_model_and_tokenizer, load_tokenizer
from epifoundation.inference.loading import encoder_of, refuse_mismatch, tokenizer_of
from epifoundation.tokenization import PeakTokenizer, PeakVocabulary


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_model_and_tokenizer_come_from_one_folder(checkpoint, trained_model, tokenizer):
    model, loaded = load_model_and_tokenizer(checkpoint, device="cpu")
    assert isinstance(model, EpiFoundationModel)
    assert not model.training
    assert loaded.vocabulary == tokenizer.vocabulary
    for name, value in trained_model.base_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert tokenizer_of(model).vocabulary == tokenizer.vocabulary


def test_another_class_and_another_tokenizer_can_be_asked_for(folder, tokenizer):
    (folder / "peaks.npz").unlink()
    model, used = load_model_and_tokenizer(
        str(folder), model_class=EpiFoundationForPeakToGeneAlignment, tokenizer=tokenizer
    )
    assert isinstance(model, EpiFoundationForPeakToGeneAlignment)
    assert used is tokenizer


def test_everything_missing_is_named(folder):
    for name in ("config.json", "model.safetensors", "peaks.npz"):
        (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks config\.json, model\.safetensors, peaks\.npz"):
        load_model_and_tokenizer(folder)
    with pytest.raises(FileNotFoundError, match=r"lacks peaks\.npz"):
        load_tokenizer(folder)


def test_missing_shards_are_named(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(FileNotFoundError, match=r"lacks model-00002-of-00002\.safetensors;"):
        load_model_and_tokenizer(folder)


def test_weights_as_pickle_are_no_weights(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors"):
        load_model_and_tokenizer(folder)


@pytest.mark.parametrize("name", ["./nothing", "a/b/c", "no such name"])
def test_a_folder_that_does_not_exist_is_an_error(name):
    with pytest.raises(FileNotFoundError, match=f"the folder {name} does not exist"):
        load_model_and_tokenizer(name)


def test_a_model_that_is_not_cached_is_an_error_offline():
    with pytest.raises(FileNotFoundError, match=r"no folder someone/something, and no model .* in the cache"):
        load_model_and_tokenizer("someone/something")


def test_a_file_is_no_checkpoint(folder):
    with pytest.raises(ValueError, match="is a file: expected the folder of a checkpoint"):
        load_model_and_tokenizer(folder / "config.json")


def test_another_type_of_model_is_refused(folder):
    edit_config(folder, model_type="bert")
    with pytest.raises(ValueError, match="type 'bert', expected 'epifoundation'"):
        load_model_and_tokenizer(folder)


def test_a_newer_format_is_refused_with_the_remedy(folder):
    assert json.loads((folder / "config.json").read_text())["format_version"] == 1
    edit_config(folder, format_version=2, hidden_size={"now": "a table"})
    with pytest.raises(ValueError, match=r"newer epifoundation \(format_version 2; this one reads up to 1\): upgrade"):
        load_model_and_tokenizer(folder)


def test_a_configuration_without_a_format_is_of_the_first(folder):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    del config["format_version"]
    file.write_text(json.dumps(config))
    assert load_model_and_tokenizer(folder, device="cpu")[0].config.format_version == 1


def test_a_damaged_configuration_is_refused(folder):
    edit_config(folder, hidden_size="wide")
    with pytest.raises(ValueError, match=r"config\.json cannot be used: .*hidden_size"):
        load_model_and_tokenizer(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="it is not JSON"):
        load_model_and_tokenizer(folder)


def test_weights_that_do_not_fit_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    missing = {k: v for k, v in weights.items() if not k.endswith("layers.1.up_proj.bias")}
    save_file(missing, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 tensors of EpiFoundationModel, such as .*layers\.1\.up_proj\.bias"):
        load_model_and_tokenizer(folder)
    edit_config(folder, intermediate_size=32)
    with pytest.raises(ValueError, match=r"do not fit its config\.json"):
        load_model_and_tokenizer(folder)
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="are damaged"):
        load_model_and_tokenizer(folder)


def test_a_tokenizer_of_another_model_is_refused(checkpoint, tokenizer):
    other = PeakTokenizer(PeakVocabulary.from_names(["chr1:1-2"]))
    with pytest.raises(ValueError, match="has vocab_size 64, the tokenizer 5 ids"):
        load_model_and_tokenizer(checkpoint, tokenizer=other)
    config = EpiFoundationConfig(vocab_size=len(tokenizer), num_chromosomes=6)
    with pytest.raises(ValueError, match="has num_chromosomes 6, the tokenizer 7"):
        refuse_mismatch(config, tokenizer)


def test_a_device_that_is_not_here_is_an_error(checkpoint):
    for name in ("nonsense", "cuda:99"):
        with pytest.raises(ValueError, match=f"there is no device '{name}' here"):
            load_model_and_tokenizer(checkpoint, device=name)


def test_the_encoder_is_found_in_every_model(trained_model):
    assert encoder_of(trained_model) is trained_model.epifoundation
    assert encoder_of(trained_model.epifoundation) is trained_model.epifoundation
    with pytest.raises(TypeError, match=r"expected an EpiFoundation model, .* got an object of type Linear"):
        encoder_of(torch.nn.Linear(1, 1))


def test_the_tokenizer_of_a_model_made_in_memory_is_not_known(tokenizer):
    config = EpiFoundationConfig(vocab_size=8, gene_vocab_size=6, hidden_size=8, num_hidden_layers=1)
    with pytest.raises(ValueError, match="pass tokenizer="):
        tokenizer_of(EpiFoundationModel(config))
