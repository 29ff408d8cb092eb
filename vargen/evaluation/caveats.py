"""When a report's numbers are not to be believed, and why samples are not better: sentences for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Below these a measure says little.
ACCURACY = 0.8  # of the classifier on held-out pictures
SAMPLES = 500  # of fewer, the Fréchet distance changes much from seed to seed
MARGIN = 0.05  # of precision above that of real pictures
RISE = 1.02  # of the held-out loss above its lowest


def caveats(
    metrics: Mapping[str, float],
    *,
    classes: int,
    held_out: int,
    features: int = 0,
    clips: bool = False,
    losses: tuple[Sequence[int], Sequence[float]] = ((), ()),
) -> list[str]:
    """Sentences, none where there is nothing to say.

    Args:
      metrics: of `evaluate`.
      classes: how many there are.
      held_out: pictures that samples were compared with.
      features: length of the classifier's feature vectors; 0 for no classifier.
      clips: whether samples are clips.
      losses: steps and held-out losses of the generator's training.
    """
    said = []
    real = metrics.get("real_label_accuracy")
    if real is not None and real < ACCURACY:
        said.append(
            f"The classifier itself is right on {real:.0%} of the held-out pictures only (chance: {1 / classes:.0%}): "
            "label accuracy, Fréchet distance, precision and recall, which rest on it, say little here."
        )
    if features and classes == 1:
        said.append(
            "There is one class, of which a classifier learns nothing: Fréchet distance, precision and recall, which "
            "rest on its features, say little here."
        )
    if features and clips:
        said.append(
            "The classifier sees single frames, and of a clip the mean of what it says of them counts: label accuracy, "
            "Fréchet distance, precision and recall know nothing of motion."
        )
    samples = int(metrics.get("samples", 0))
    fewest = min(samples, held_out)
    if features and fewest < SAMPLES:
        what = "samples" if samples <= held_out else "held-out pictures"
        rank = f", fewer than the {features} features" if fewest <= features else ""
        said.append(
            f"Fréchet distance, precision and recall were measured with {fewest} {what}{rank}: the Fréchet distance "
            "comes out too large, and differs from seed to seed. Compare it at equal numbers alone; "
            f"{SAMPLES} or more are better."
        )
    precision, real_precision = metrics.get("precision"), metrics.get("real_precision")
    if precision is not None and real_precision is not None and precision > real_precision + MARGIN:
        said.append(
            f"Precision is above that of real pictures ({precision:.0%} against {real_precision:.0%}): samples keep to "
            "what is common, as high guidance or a low temperature makes them; look at recall beside it."
        )
    near, real_near = metrics.get("nearest_distance"), metrics.get("real_nearest_distance")
    if near is not None and real_near and near < 0.5 * real_near:
        said.append(
            "Samples lie nearer to training pictures than held-out pictures do "
            f"({near:.3f} against {real_near:.3f}): the generator repeats what it has seen. More pictures, fewer "
            "steps or more dropout help."
        )
    steps, values = losses
    if len(values) > 2 and values[-1] > RISE * min(values):
        best = steps[list(values).index(min(values))]
        said.append(
            f"The generator's held-out loss was lowest at step {best} ({min(values):.4g}) and is {values[-1]:.4g} now: "
            f"it learns the training pictures by heart. --config.training.steps={best}, more pictures or more dropout "
            "help."
        )
    return said
