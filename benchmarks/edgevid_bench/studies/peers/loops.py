"""The peers' own loops over a clip, as their documentation has them; each runs in an environment of its own.

    python loops.py NAME '{"clip": ..., ...}'    answers {"fps": ..., "labels": [...]} on the last line of stdout

Loading is in no figure, and the first frames of a clip have been seen before the clock starts. Reading the clip is in
every figure. This file imports nothing of edgevid, which is not there in those environments.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

WARM_UP = 20
Answer = dict[str, Any]


def keras_predict(request: Answer) -> Answer:
    """The loop of the literature on Keras video classification: ``model.predict`` on a frame, mean over a deque."""
    import cv2
    import keras
    import numpy as np

    model = keras.saving.load_model(request["model"], compile=False)
    height, width = request["size"]
    mean, std = np.float32(request["mean"]), np.float32(request["std"])

    def classify(frame: Any) -> Any:
        image = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), (width, height)).astype(np.float32)
        return model.predict(((image - mean) / std)[None], verbose=0)[0]

    return timed(request, classify)


def opencv_litert(request: Answer) -> Answer:
    """A plain serial loop: OpenCV reads and shrinks the frame, one interpreter has every core, mean over a deque."""
    import cv2
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(request["model"], num_threads=request["threads"])
    interpreter.allocate_tensors()
    image_index = interpreter.get_input_details()[0]["index"]
    answer_index = interpreter.get_output_details()[0]["index"]
    height, width = request["size"]
    mean, std = np.float32(request["mean"]), np.float32(request["std"])

    def classify(frame: Any) -> Any:
        image = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), (width, height), interpolation=cv2.INTER_AREA)
        interpreter.set_tensor(image_index, ((image.astype(np.float32) - mean) / std)[None])
        interpreter.invoke()
        return interpreter.get_tensor(answer_index)[0]

    return timed(request, classify)


def mediapipe_video(request: Answer) -> Answer:
    """MediaPipe's ImageClassifier in VIDEO mode; it smooths nothing."""
    import cv2
    import mediapipe as mp
    from mediapipe.tasks import python as tasks
    from mediapipe.tasks.python import vision

    options = vision.ImageClassifierOptions(
        base_options=tasks.BaseOptions(model_asset_path=request["model"]),
        running_mode=vision.RunningMode.VIDEO,
        max_results=1,
    )
    shown = 0
    with vision.ImageClassifier.create_from_options(options) as classifier:

        def classify(frame: Any) -> str:
            nonlocal shown
            shown += 1
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            result = classifier.classify_for_video(image, 40 * shown)
            return str(result.classifications[0].categories[0].category_name)

        return timed(request, classify, smooth=False)


def mediapipe_metadata(request: Answer) -> Answer:
    """Write what MediaPipe wants to know of a model into a copy of it; its newest version has lost the writer."""
    from pathlib import Path

    from mediapipe.tasks.python.metadata.metadata_writers import image_classifier, metadata_writer

    writer = image_classifier.MetadataWriter.create(
        bytearray(Path(request["model"]).read_bytes()),
        request["mean"],
        request["std"],
        labels=metadata_writer.Labels().add(request["labels"]),
    )
    Path(request["output"]).write_bytes(writer.populate()[0])
    return {}


def ultralytics_export(request: Answer) -> Answer:
    """Export Ultralytics' smallest classifier, untrained, to ONNX: its speed is that of the trained one."""
    from ultralytics import YOLO

    path = YOLO("yolo11n-cls.yaml").export(format="onnx", imgsz=224, opset=17, simplify=False)
    return {"path": str(path)}


def ultralytics_stream(request: Answer) -> Answer:
    """Ultralytics' ``predict(stream=True)``; it smooths nothing."""
    from ultralytics import YOLO

    model = YOLO(request["model"], task="classify")

    def results() -> Iterator[Any]:
        return iter(model.predict(request["clip"], stream=True, verbose=False, imgsz=224, device="cpu"))

    for _, _ in zip(range(WARM_UP), results(), strict=False):
        pass
    start = time.perf_counter()
    labels = [int(result.probs.top1) for result in results()]
    return {"fps": len(labels) / (time.perf_counter() - start), "labels": labels}


def timed(request: Answer, classify: Callable[[Any], Any], smooth: bool = True) -> Answer:
    """Read the clip with OpenCV and classify each frame; answer frames per second and labels."""
    import cv2
    import numpy as np

    def frames() -> Iterator[Any]:
        capture = cv2.VideoCapture(request["clip"])
        while True:
            delivered, frame = capture.read()
            if not delivered:
                return
            yield frame

    for _, frame in zip(range(WARM_UP), frames(), strict=False):
        classify(frame)
    last_answers: deque[Any] = deque(maxlen=request["window"])
    labels: list[Any] = []
    start = time.perf_counter()
    for frame in frames():
        answer = classify(frame)
        if smooth:
            last_answers.append(answer)
            answer = int(np.array(last_answers).mean(axis=0).argmax())
        labels.append(answer)
        if len(labels) == request.get("max_frames"):
            break
    return {"fps": len(labels) / (time.perf_counter() - start), "labels": labels}


LOOPS = {
    loop.__name__: loop
    for loop in (
        keras_predict,
        opencv_litert,
        mediapipe_video,
        mediapipe_metadata,
        ultralytics_export,
        ultralytics_stream,
    )
}

if __name__ == "__main__":
    answer = LOOPS[sys.argv[1]](json.loads(sys.argv[2]))
    sys.stdout.write(f"\n{json.dumps(answer)}\n")
