"""Settings of the data: the source of the rows, and their preparation."""

import dataclasses
import re

from aejax.errors import check_choice, check_least


@dataclasses.dataclass
class Prepare:
    """The preparation of raw rows on the device: augment, scale, binarise, centre, in this order.

    Images are augmented in this order too: deform, shift, flip.

    Statistics come from the training split and are written to the run's config.json.

    Attributes:
        scale: bring values to [0, 1]: bytes over 255, real numbers by the training minimum and
            maximum (other rows may lie a little outside).
        binarise: none; threshold (above one half); sampled (drawn anew at each use in training
            with the grey value as probability; threshold in evaluation, but for the task
            likelihood, which draws once a row).
        centre: none; mean (subtract each element's training mean); standardise (and divide by its
            standard deviation, where it has one); of a table its columns of numbers alone.
        shift: augment in training: move each image by up to this many pixels either way.
        flip: augment in training: mirror each image left to right, every second time.
        deform: augment in training: deform each image anew in each epoch, by smooth random
            displacements of this many pixels (root mean square along each axis; 1 is
            infiMNIST's) and a shift by at most one pixel; 0 for none.
    """

    scale: bool = True
    binarise: str = "none"
    centre: str = "none"
    shift: int = 0
    flip: bool = False
    deform: float = 0.0

    def __post_init__(self):
        check_least("shift", self.shift, 0)
        check_least("deform", self.deform, 0)
        check_choice("binarise", self.binarise, ("none", "threshold", "sampled"))
        check_choice("centre", self.centre, ("none", "mean", "standardise"))
        if self.binarise != "none" and not self.scale:
            raise ValueError(f"binarise={self.binarise}: needs config.data.prepare.scale=True")
        if self.binarise == "sampled" and self.centre != "none":
            raise ValueError(
                f"centre={self.centre} with binarise=sampled: what is drawn anew each time has no"
                " fixed mean to subtract; one of them must be none"
            )


@dataclasses.dataclass
class Data:
    """Where examples come from.

    Attributes:
        source: digits | idx:FOLDER | images:FOLDER | npz:FILE | sound:FOLDER | table:FILE |
            text:FILE or FOLDER | planted:KIND | tfds:NAME, with options behind the path, as
            images:FOLDER?size=64. A relative path goes from where the run was started first, or
            else from here.
        train: split that trains, by name and slice: train, train[:90%], train[:50000].
        test: split that is evaluated: test, train[90%:].
        keep_labels: labels of the rows to train on and to evaluate, such as 3 or 3,5; the others
            are left out of both splits. () for all rows.
        labels: how many training rows have a label that a classifier may learn from, such as 1% or
            600, in the classes' own shares; "" for all. Stages of pre-training learn from all rows.
        labels_seed: of the choice of these rows; more of them hold those of fewer.
        folder: TFDS's data folder; "" for its default.
        feed: resident keeps the whole split on every device; streaming reads rows ahead while
            steps run; auto is resident up to resident_mib.
        resident_mib: largest split, in MiB as stored, that auto keeps on every device.
        threads: that read ahead for the streaming feed; more where rows are slow to read or decode.
        prepare: how raw rows become the model's input.
    """

    source: str = "digits"
    train: str = "train"
    test: str = "test"
    keep_labels: tuple[int, ...] = ()
    labels: str = ""
    labels_seed: int = 0
    folder: str = ""
    feed: str = "auto"
    resident_mib: int = 1024
    threads: int = 16
    prepare: Prepare = dataclasses.field(default_factory=Prepare)

    def __post_init__(self):
        check_choice("feed", self.feed, ("auto", "resident", "streaming"))
        check_least("labels_seed", self.labels_seed, 0)
        if self.labels and not re.fullmatch(r"\d+|\d+(\.\d+)?%", self.labels):
            raise ValueError(
                f"labels={self.labels}: must be a share such as 1%, or a number of rows"
            )
        check_least("resident_mib", self.resident_mib, 0)
        check_least("threads", self.threads, 1)
