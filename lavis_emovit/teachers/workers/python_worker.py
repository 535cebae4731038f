"""The worker of teachers that are Python packages: `python -I python_worker.py fer`, in the environment of `fer`.

Its environment has other packages than ours, so it imports nothing from here. The protocol is described in
`lavis_emovit/teachers/worker.py`.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from typing import Any


def fer() -> Any:
    """`fer`: a Haar cascade that finds frontal faces, and seven expressions by a quantised network."""
    from fer.fer import FER

    detector = FER()

    def annotate(pixels: Any) -> list[dict[str, Any]]:
        faces = []
        for found in detector.detect_emotions(pixels[:, :, ::-1].copy()):
            left, top, width, height = (float(value) for value in found["box"])
            faces.append({"box": [left, top, left + width, top + height], "expressions": found["emotions"]})
        return faces

    return annotate


def mediapipe() -> Any:
    """`mediapipe`: the detector for faces at a distance, then a mesh of 478 points in each detected face."""
    import mediapipe as mp
    import numpy as np

    detector = mp.solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=0.5)
    mesh = mp.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True)

    def annotate(pixels: Any) -> list[dict[str, Any]]:
        height, width = pixels.shape[:2]
        faces = []
        for found in detector.process(pixels).detections or ():
            area = found.location_data.relative_bounding_box
            left, top = area.xmin * width, area.ymin * height
            box = [left, top, left + area.width * width, top + area.height * height]
            face: dict[str, Any] = {"box": box, "score": float(found.score[0])}
            # The mesh's own detector misses small faces, so it gets the part of the image around one.
            x0, y0 = (int(max(0, start - 0.5 * size)) for start, size in zip(box, _size(box)))
            x1, y1 = (int(end + 0.5 * size) for end, size in zip(box[2:], _size(box)))
            part = np.ascontiguousarray(pixels[y0:y1, x0:x1])
            if part.size and (points := mesh.process(part).multi_face_landmarks):
                face["landmarks"] = [
                    [round(x0 + point.x * part.shape[1], 2), round(y0 + point.y * part.shape[0], 2)]
                    for point in points[0].landmark
                ]
            faces.append(face)
        return faces

    return annotate


def _size(box: list[float]) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def main(name: str) -> None:
    # Packages print to the standard output, which belongs to the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def write(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    annotate = {"fer": fer, "mediapipe": mediapipe}[name]()
    import numpy as np

    write({"ready": True, "version": version(name)})
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        width, height = request["width"], request["height"]
        pixels = np.frombuffer(sys.stdin.buffer.read(width * height * 3), np.uint8).reshape(height, width, 3)
        try:
            write({"id": request["id"], "faces": annotate(pixels)})
        # Whatever a package raises about one image, the worker stays for the others.
        except Exception as error:
            write({"id": request["id"], "error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main(sys.argv[1])
