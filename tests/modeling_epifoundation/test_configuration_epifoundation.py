import json

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError

from epifoundation import EpiFoundationConfig


def test_defaults_are_those_of_the_paper():
    config = EpiFoundationConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (512, 6, 8)
    assert (config.max_peaks, config.max_genes, config.num_expression_bins) == (12_000, 8_000, 10)
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.15
    assert config.pooling == "cls"
    assert config.use_chromosome_embeddings
    # 22 autosomes, X and Y after the four special tokens
    assert config.num_chromosomes == 4 + 24


def test_defaults_are_those_of_the_official_code_where_the_paper_is_silent():
    config = EpiFoundationConfig()
    assert (config.intermediate_size, config.gene_decoder_size, config.hidden_act) == (1024, 128, "relu")
    assert (config.layer_norm_eps, config.batch_norm_eps, config.batch_norm_momentum) == (1e-5, 6.1e-5, 0.1)
    special = (config.pad_token_id, config.mask_token_id, config.cls_token_id, config.eos_token_id)
    assert special == (0, 1, 2, 3)
    assert not config.use_batch_embeddings
    assert not config.use_gene_bias


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "64"),
        ("hidden_size", 64.0),
        ("num_hidden_layers", True),
        ("hidden_dropout_prob", "0.1"),
        ("hidden_dropout_prob", True),
        ("batch_norm_eps", 1),
        ("use_gene_bias", 1),
        ("pooling", "max"),
        ("gene_pad_token_id", None),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_by_name(field, value):
    with pytest.raises(StrictDataclassFieldValidationError, match=field):
        EpiFoundationConfig(**{field: value})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 20, "num_attention_heads": 8}, r"hidden_size \(20\) must be a multiple of .* \(8\)"),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, got 0"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"gene_vocab_size": 0}, "gene_vocab_size must be at least 1, got 0"),
        ({"num_chromosomes": 0}, "num_chromosomes must be at least 1, got 0"),
        ({"use_batch_embeddings": True}, "use_batch_embeddings needs num_batches.* it is 0"),
        ({"hidden_dropout_prob": 1}, r"hidden_dropout_prob must lie in \[0, 1\), got 1"),
        ({"attention_probs_dropout_prob": -0.1}, r"attention_probs_dropout_prob must lie in \[0, 1\), got -0.1"),
        ({"use_cls_token": False}, r"pooling='cls' takes the output at \[CLS\], .* use 'mean'"),
        ({"max_position_embeddings": -1}, "max_position_embeddings must be at least 0, got -1"),
        ({"discriminator_size": 0}, "discriminator_size must be at least 1, or None, got 0"),
        ({"num_imputed_genes": 0}, "num_imputed_genes must be at least 1, or None, got 0"),
        ({"gene_encoder": {"vocab_size": 3}}, "must name its kind under 'model_type', .* got the keys vocab_size"),
        ({"vocab_size": 3}, "eos_token_id must lie in the peak table of 3 rows, got 3"),
        ({"pad_token_id": -1}, "pad_token_id must lie in the peak table"),
        ({"gene_pad_token_id": 50, "gene_vocab_size": 50}, "gene_pad_token_id must lie in the gene table of 50 rows"),
    ],
)
def test_what_cannot_work_together_is_refused(fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message) as refused:
        EpiFoundationConfig(**fields)
    assert isinstance(refused.value.__cause__, ValueError)


def test_a_configuration_made_impossible_later_cannot_be_saved(make_config, tmp_path):
    config = make_config()
    config.num_attention_heads = 5
    with pytest.raises(StrictDataclassClassValidationError, match="must be a multiple of num_attention_heads"):
        config.save_pretrained(tmp_path)


def test_whole_numbers_pass_as_dropout_and_missing_special_tokens_as_none():
    config = EpiFoundationConfig(hidden_dropout_prob=0, mask_token_id=None, eos_token_id=None)
    assert config.hidden_dropout_prob == 0
    assert config.eos_token_id is None


def test_a_saved_configuration_comes_back_equal(make_config, tmp_path):
    config = make_config(
        num_batches=3,
        use_batch_embeddings=True,
        use_gene_bias=True,
        pooling="mean",
        use_cls_token=False,
        gene_encoder={"model_type": "bert", "hidden_size": 8},
        id2label={0: "B", 1: "NK", 2: "T"},
        label2id={"B": 0, "NK": 1, "T": 2},
    )
    config.save_pretrained(tmp_path)
    again = EpiFoundationConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert again.id2label == {0: "B", 1: "NK", 2: "T"}
    assert again.num_labels == 3
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "epifoundation"


def test_a_file_with_a_wrong_type_is_refused_when_read(make_config, tmp_path):
    make_config().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"num_hidden_layers": "two"}))
    with pytest.raises(StrictDataclassFieldValidationError, match="num_hidden_layers"):
        EpiFoundationConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("version", [0, 2])
def test_a_format_that_is_not_known_says_what_to_do(version):
    with pytest.raises(StrictDataclassClassValidationError, match="written by a newer epifoundation; upgrade with"):
        EpiFoundationConfig(format_version=version)
