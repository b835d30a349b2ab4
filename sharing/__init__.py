"""A folder as a product: what belongs into it, its card, its checksums, and the way to the Hub and back."""

from .cards import dataset_card, model_card, write_card
from .checksums import CHECKSUMS_FILE, damaged_files, write_checksums
from .download import Pulled, pull
from .folders import complete_checkpoint, complete_dataset, contents, kind_of, refuse_incomplete
from .upload import Pushed, push_folder, push_to_hub

__all__ = [
    "CHECKSUMS_FILE",
    "Pulled",
    "Pushed",
    "complete_checkpoint",
    "complete_dataset",
    "contents",
    "damaged_files",
    "dataset_card",
    "kind_of",
    "model_card",
    "pull",
    "push_folder",
    "push_to_hub",
    "refuse_incomplete",
    "write_card",
    "write_checksums",
]
