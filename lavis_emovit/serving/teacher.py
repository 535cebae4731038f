"""A tuned model as a teacher: `python -m lavis_emovit.serving.teacher RUN`, which `tuned:RUN` starts.

It judges the whole image that it is shown, which is the part around the box if the record has one.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from PIL import Image

from lavis_emovit.boxes import shows_both
from lavis_emovit.emotion.labels_faces import EXPRESSIONS8
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.teachers.catalogue import tuned_version
from lavis_emovit.teachers.faces import Face
from lavis_emovit.teachers.program import Annotate, run_program

if TYPE_CHECKING:
    from lavis_emovit.tuned.loading import Tuned


def annotator(tuned: Tuned) -> Annotate:
    """Function of an image -> its one face, which is all of it, with the probabilities of the model's labels.

    They are not calibrated, so that the answers depend on the weights alone, which are the version of the teacher.
    UserError if its labels are no facial expressions, or it was tuned to see two images for a face.
    """
    from lavis_emovit.tuned.inputs import InputImage
    from lavis_emovit.tuned.predictions import PredictionSettings, predict

    try:
        expressions = {label: EXPRESSIONS8.canonical(label) for label in tuned.labels}
    except DataError as error:
        raise UserError(f"{tuned.files.location}: its labels are no facial expressions ({error})") from None
    if len(set(expressions.values())) < 2:
        raise UserError(f"{tuned.files.location}: has no labels of at least two facial expressions")
    if shows_both(tuned.box):
        raise UserError(
            f"{tuned.files.location}: cannot be a teacher: teachers see one image, and it was tuned on two "
            "(`box: both`)"
        )
    settings = PredictionSettings(tuned.askings(["emotion"]))

    def annotate(image: Image.Image) -> list[Face]:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        ((row,),) = predict(tuned.adapter, [InputImage("image", buffer.getvalue)], settings, batch_size=1)
        if row.probabilities is None:
            raise DataError(row.error or "the model writes its answers, and has no probabilities of labels")
        shares: dict[str, float] = {}
        for label, share in row.probabilities.items():
            shares[expressions[label]] = shares.get(expressions[label], 0.0) + share
        return [Face(box=(0.0, 0.0, float(image.width), float(image.height)), expressions=shares)]

    return annotate


def main(location: str) -> None:
    from lavis_emovit.tuned.loading import load_tuned

    def load() -> tuple[str, Annotate]:
        return tuned_version(location), annotator(load_tuned(location))

    run_program(load)


if __name__ == "__main__":
    main(sys.argv[1])
