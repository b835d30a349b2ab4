"""The options of a run, and how they are read: a YAML file, then the command line."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml  # type: ignore[import-untyped]
from transformers import HfArgumentParser, TrainingArguments

SETTINGS_SUFFIXES = (".yaml", ".yml")
# Metrics of which less is better; the Trainer knows of losses only.
LESS_IS_BETTER = ("loss", "mse", "foscttm", "batch_accuracy", "adversary_accuracy")
# In place of a checkpoint: cells without measured genes have none to be pre-trained on.
NEW_MODEL = "new"


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(kw_only=True)
class RunOptions:
    """What every run has besides the arguments of the Trainer."""

    data: str = field(metadata={"help": "Folder of the tokenised training cells."})
    validation_data: str | None = _option(None, "Folder of the held-out cells; by default a share of the data.")
    validation_share: float = _option(0.1, "Share of cells held out where no others are given, by the seed; 0: none.")
    tokenizer: str | None = _option(None, "Folder of the tokenizer; by default that of the model, else of the data.")
    max_peaks: int | None = _option(None, "Peaks read of a cell at most; by default as the tokenizer says.")
    max_tokens_per_batch: int | None = _option(None, "Tokens per batch and process at most; by default no limit.")
    packing: bool = _option(True, "Lay the training cells of a batch end to end; otherwise they are padded.")
    freeze_peak_table: bool = _option(False, "Do not train the peak embeddings.")
    lazy_adam: bool = _option(False, "AdamW that updates only the peaks and genes of the batch; saves time and memory.")
    freeze_batch_norm: bool = _option(False, "Leave BatchNorm at its statistics; for very small batches.")
    early_stopping_patience: int | None = _option(None, "Stop after so many evaluations without a better metric.")
    num_processes: int | None = _option(None, "How many processes there should be; any other number is an error.")
    overwrite: bool = _option(False, "Start anew, removing the checkpoints of an earlier run in the output folder.")
    curves: bool = _option(True, "Draw the loss and the metric as curves.png; needs the extra 'plot'.")


@dataclass(kw_only=True)
class GeneOptions:
    """Which genes are asked for."""

    max_genes: int = _option(8_000, "Genes drawn per cell in training.")
    num_eval_genes: int = _option(2_000, "Genes in evaluation, the same for all cells; 0 for all.")


@dataclass(kw_only=True)
class NewModelOptions:
    """What a new model is like. The sizes are those of the paper; none of it is used where there is a checkpoint."""

    encoder: Literal["epifoundation", "atacformer"] = _option("epifoundation", "Which paper's encoder.")
    init_peak_embeddings: Literal["random", "lsi"] = _option("random", "Starting values of a new model's peaks.")
    use_chromosome_embeddings: bool = _option(True, "Add chromosome embeddings to peaks and genes.")
    pooling: Literal["cls", "mean"] = _option("cls", "How tokens become the cell embedding.")
    hidden_size: int = _option(512, "Width of the encoder.")
    num_hidden_layers: int = _option(6, "Encoder layers.")
    num_attention_heads: int = _option(8, "Attention heads.")
    intermediate_size: int = _option(1_024, "Width of the feed-forward part.")


@dataclass(kw_only=True)
class PretrainOptions(NewModelOptions, GeneOptions, RunOptions):
    """Options of `pretrain`; those of genes have no effect on objectives without genes."""

    objective: Literal["peak_to_gene", "replaced_peaks", "masked_peaks", "combined"] = _option(
        "peak_to_gene", "What is learned: which genes are expressed, which peaks are replaced or hidden, or all three."
    )
    replaced_share: float = _option(0.45, "Share of peaks that are replaced.")
    masked_share: float = _option(0.15, "Share of peaks that are to be named.")
    peak_to_gene_weight: float = _option(1.0, "Of this objective in the sum of all three.")
    replaced_peaks_weight: float = _option(1.0, "Likewise.")
    masked_peaks_weight: float = _option(1.0, "Likewise.")
    model: str | None = _option(None, "Checkpoint to go on from; by default a new model.")
    use_batch_embeddings: bool = _option(False, "Join an embedding of each cell's batch (paper: yes).")
    use_gene_bias: bool = _option(False, "Start each gene at its log-odds of being expressed.")
    whiten_cells: bool = _option(False, "Start a new gene decoder on whitened cell embeddings.")
    gene_decoder_size: int = _option(128, "Width of the peak-to-gene decoder.")
    hidden_dropout_prob: float = _option(0.15, "Dropout.")
    attention_probs_dropout_prob: float = _option(0.15, "Dropout of attention weights; slow on a CPU above 0.")


@dataclass(kw_only=True)
class FinetuneOptions(RunOptions):
    """What all fine-tunings have in common."""

    model: str = field(metadata={"help": "The pre-trained checkpoint: a folder, or a name on the Hub."})
    hidden_dropout_prob: float | None = _option(None, "Dropout; by default that of the checkpoint.")
    attention_probs_dropout_prob: float | None = _option(None, "Likewise of attention weights.")
    lora: bool = _option(False, "Train low-rank updates of the encoder's layers; embeddings and head as they are.")
    lora_rank: int = _option(8, "Rank of the updates.")
    lora_alpha: int = _option(16, "Their scale, before it is divided by the rank.")


@dataclass(kw_only=True)
class LabelOptions(NewModelOptions, FinetuneOptions):
    """What fine-tunings for labels have in common."""

    model: str = field(metadata={"help": f"The pre-trained checkpoint, or {NEW_MODEL!r} to do without one."})


@dataclass(kw_only=True)
class ClassificationOptions(LabelOptions):
    """Options of `finetune_classification`."""

    class_weights: Literal["none", "balanced"] = _option("none", "Let each cell type count the same, however rare.")


@dataclass(kw_only=True)
class ExpressionOptions(GeneOptions, FinetuneOptions):
    """Options of `finetune_expression`."""

    num_expression_bins: int = _option(10, "Levels of expression, 0 among them.")
    gene_draw: Literal["balanced", "uniform"] = _option("balanced", "Half expressed genes in training, or by chance.")
    legacy_levels: bool = _option(False, "The official levels, which ties leave gaps in.")


@dataclass(kw_only=True)
class ClusteringOptions(FinetuneOptions):
    """Options of `finetune_clustering`."""


@dataclass(kw_only=True)
class BatchCorrectionOptions(FinetuneOptions):
    """Options of `finetune_batch_correction`."""

    replaced_share: float = _option(0.45, "Share of peaks that are replaced.")
    adversarial_weight: float = _option(1.0, "Of telling batches apart in the loss.")
    gradient_reversal: float = _option(1.0, "Factor of the reversed gradient that the encoder gets from it.")
    standardize_adversary: bool = _option(True, "Let it hear all directions of the embedding alike; paper: false.")
    adversary_learning_rate: float = _option(30.0, "Factor on the learning rate of the adversary; paper: 1.")
    num_trainable_layers: int = _option(0, "Last layers of the encoder that learn, beside its norms; 0 for all of it.")


@dataclass(kw_only=True)
class ContrastiveOptions(FinetuneOptions):
    """Options of `finetune_contrastive`. The sizes are those of a new encoder of genes."""

    model: str = field(metadata={"help": "The pre-trained checkpoint of the ATAC side, or of both sides."})
    gene_encoder: str | None = _option(None, "Checkpoint of an encoder of genes, with the ids of the tokenizer.")
    max_genes: int = _option(2_048, "Genes read of a cell, the most expressed ones.")
    use_typical_gene_counts: bool = _option(True, "Rank genes by their counts divided by what is usual for each.")
    projection_size: int | None = _option(None, "Width of the space of both; by default the checkpoint's, else 256.")
    gene_hidden_size: int = _option(256, "Width of the encoder of genes.")
    gene_layers: int = _option(4, "Its layers.")
    gene_attention_heads: int = _option(4, "Its attention heads.")
    gene_intermediate_size: int = _option(512, "Width of its feed-forward part.")


@dataclass(kw_only=True)
class ImputationOptions(FinetuneOptions):
    """Options of `finetune_imputation`."""

    model: str = field(metadata={"help": "A checkpoint of 'finetune contrastive'."})


@dataclass(kw_only=True)
class BulkOptions(LabelOptions):
    """Options of `finetune_bulk`."""


@dataclass
class RunArguments(TrainingArguments):
    """``transformers.TrainingArguments`` with the paper's optimisation as defaults, and evaluation at each epoch."""

    learning_rate: float = _option(1e-4, "Highest learning rate.")
    lr_scheduler_type: str = _option("cosine", "Schedule of the learning rate.")
    warmup_steps: float = _option(0.05, "Steps of rising learning rate, or below 1 their share.")
    per_device_train_batch_size: int = _option(8, "Cells per batch and process at most.")
    eval_strategy: str = _option("epoch", "When to evaluate: no, steps or epoch.")
    save_strategy: str = _option("epoch", "When to write a checkpoint: no, steps, epoch or best.")
    logging_steps: float = _option(50, "Steps between two logged losses.")
    ddp_find_unused_parameters: bool = _option(False, "Look for weights without a gradient; there are none here.")
    report_to: str = _option("none", "Where to log too, such as tensorboard.")

    def __post_init__(self) -> None:
        if self.metric_for_best_model and self.greater_is_better is None:
            self.greater_is_better = not self.metric_for_best_model.endswith(LESS_IS_BETTER)
        # The collators read columns that the models do not, and models wrapped by PEFT do not tell their labels.
        self.remove_unused_columns = False
        self.label_names = ["labels"]
        super().__post_init__()


Options = TypeVar("Options", bound=RunOptions)


def read_options(kind: type[Options], words: Sequence[str]) -> tuple[Options, RunArguments]:
    """Read the words of a command line: ``[settings.yaml] [--name value ...]``; later ones win.

    Args:
        kind: the options of the run.
        words: without the name of the program.

    Raises:
        FileNotFoundError: if there is no such settings file.
        ValueError: if an option is not known, misses, or has a value that cannot be read.
    """
    words = list(words)
    if words and words[0].endswith(SETTINGS_SUFFIXES):
        words = [*_words_of(Path(words[0])), *words[1:]]
    parser = option_parser(kind)
    _refuse_unknown(words, parser)
    options, arguments = parser.parse_args_into_dataclasses(words)
    return options, arguments


def option_parser(kind: type[RunOptions]) -> HfArgumentParser:
    """A parser of the options of a run and of the arguments of the Trainer; it raises in place of leaving Python."""
    parser = HfArgumentParser((kind, RunArguments), allow_abbrev=False, add_help=False)  # type: ignore[arg-type]

    def refuse(message: str) -> None:
        raise ValueError(message)

    parser.error = refuse  # type: ignore[method-assign, assignment]
    return parser


def own_options(kind: type[RunOptions]) -> list[tuple[str, Any, str]]:
    """Name, default and description of each option that is not one of the Trainer."""
    required = [f for f in fields(kind) if "help" in f.metadata]
    return [(f.name, f.default, f.metadata["help"]) for f in required]


def _words_of(file: Path) -> list[str]:
    if not file.is_file():
        raise FileNotFoundError(f"there is no settings file {file}")
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"expected lines like 'learning_rate: 1e-4' in {file}, got {type(settings).__name__}")
    words = []
    for name, value in settings.items():
        if value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def _refuse_unknown(words: Sequence[str], parser: HfArgumentParser) -> None:
    known = [option for action in parser._actions for option in action.option_strings]
    for word in words:
        name = word.split("=")[0]
        if word.startswith("--") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; is {near[0]} meant?" if near else ""
            raise ValueError(f"there is no option {name}{hint}")
    if words and not words[0].startswith("-"):
        raise ValueError(f"expected a settings file (.yaml) or options like --data cells, got {words[0]!r}")
