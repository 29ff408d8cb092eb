"""How a report shows what was measured: labels, units, what a number means, and its reference on real images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from vargen import progress


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a metric is shown: `reference` is the key of the same measure on real images."""

    label: str
    format: str
    meaning: str
    reference: str = ""

    def beside_real(self, key: str, metrics: Mapping[str, float]) -> str:
        """The metric `key` and, where there is one, its reference, in words."""
        real = metrics.get(self.reference)
        return self.show(metrics[key]) + ("" if real is None else f" (real images: {self.show(real)})")

    def show(self, value: float) -> str:
        """The value with its unit."""
        if self.format == _PERCENT:
            return f"{100 * value:.1f} %"
        if self.format == _TIME:
            return progress.duration(value)
        if self.format == _COUNT:
            return engineering(value)
        return self.format.format(value)


def engineering(value: float) -> str:
    """A large number in three digits: 950, 1.23 k, 45.6 M, 7.89 G."""
    for unit in ("", " k", " M", " G", " T", " P", " E"):
        if abs(value) < 999.5 or unit == " E":
            return f"{value:.3g}{unit}"
        value /= 1000
    raise AssertionError


_PERCENT, _TIME, _COUNT = "percent", "seconds", "count"


def _vtbench() -> dict[str, Metric]:
    """The measures of VTBench's sets (`vargen.data.vtbench`)."""
    names = (
        "imagenet,high resolution,varying resolution,patterns,posters,abstracts,chinese,hindi,japanese,korean"
    )
    measures = dict(
        psnr_db=("PSNR", "{:.2f} dB", ""),
        ssim=("SSIM", "{:.3f}", ""),
        lpips=("LPIPS", "{:.3f}", ""),
        rfid=("rFID", "{:.2f}", ""),
        cer=("CER", "{:.3f}", "edits of letters, of those read of the originals"),
        wer=("WER", "{:.3f}", "edits of words, likewise"),
    )
    return {
        f"vtbench_{name.replace(' ', '_')}_{key}": Metric(f"VTBench {name} {label}", *how)
        for name in names.split(",")
        for key, (label, *how) in measures.items()
    }


# fmt: off
METRICS = {
    "valid": Metric("Valid codes", _PERCENT, "samples whose codes are such as a picture has, from first to last"),
    "label_accuracy": Metric("Label accuracy", _PERCENT,
        "samples that a classifier gives the class they were asked for", "real_label_accuracy"),
    "frechet_distance_classifier": Metric("Fréchet distance (classifier)", "{:.2f}",
        "on the classifier's features, to held-out images; lower is closer",
        "real_frechet_distance_classifier"),
    "precision": Metric("Precision", _PERCENT, "samples that lie among the real images", "real_precision"),
    "recall": Metric("Recall", _PERCENT, "real images that lie among the samples", "real_recall"),
    "fid": Metric("FID", "{:.2f}", "Fréchet distance on Inception's features to the reference; lower is closer"),
    "sfid": Metric("sFID", "{:.2f}", "the same on features that know places"),
    "inception_score": Metric("Inception score", "{:.2f}",
        "classes sure of each sample and many of all; higher is better"),
    "inception_precision": Metric("Precision (Inception)", _PERCENT,
        "samples that lie among the reference, as ADM has it"),
    "inception_recall": Metric("Recall (Inception)", _PERCENT, "reference images that lie among the samples, likewise"),
    "kid": Metric("KID", "{:.5f}", "kernel distance on Inception's features, mean over subsets"),
    "fd_dinov2": Metric("FD-DINOv2", "{:.2f}", "Fréchet distance on DINOv2's features; lower is closer"),
    "cmmd": Metric("CMMD", "{:.3f}", "discrepancy of CLIP's features, times 1000; lower is closer"),
    "features_frechet_distance": Metric("Fréchet distance (given features)", "{:.3f}",
        "on features that came with the samples; of DINOv2's, FD-DINOv2"),
    "features_precision": Metric("Precision (given features)", _PERCENT, ""),
    "features_recall": Metric("Recall (given features)", _PERCENT, ""),
    "features_kid": Metric("KID (given features)", "{:.5f}", ""),
    "features_cmmd": Metric("CMMD (given features)", "{:.3f}", "published for CLIP's embeddings"),
    "nearest_distance": Metric("Nearest training picture", "{:.3f}",
        "median distance of samples to the nearest one (rms, both averaged to 16x16); far below real images': copies",
        "real_nearest_distance"),
    "psnr_db": Metric("Reconstruction PSNR", "{:.2f} dB",
        "held-out images through the tokenizer and back, mean; higher is closer"),
    "ssim": Metric("Reconstruction SSIM", "{:.3f}", "structural similarity, 1 for identical"),
    "ms_ssim": Metric("Reconstruction MS-SSIM", "{:.3f}", "structural similarity at several scales, 1 for identical"),
    "lpips": Metric("Reconstruction LPIPS", "{:.3f}", "distance by a network's features, 0 for identical"),
    "rfid": Metric("rFID", "{:.2f}", "Fréchet distance of reconstructions to the images on Inception's features"),
    "linear_probe": Metric("Linear probe", _PERCENT, "held-out images whose class a linear map of the latents finds"),
    "bits_per_pixel": Metric("Bits per pixel", "{:.3f}", "that the codes take, uncompressed"),
    "encode_seconds": Metric("Encoding", "{:.4f} s", "an image, after compilation, batched"),
    "decode_seconds": Metric("Decoding", "{:.4f} s", "likewise"),
    "encoder_parameters": Metric("Parameters, encoder", _COUNT, ""),
    "decoder_parameters": Metric("Parameters, decoder", _COUNT, ""),
    "detail_characters": Metric("Letters read", _PERCENT,
        "drawn ones whose reconstruction resembles no other letter more; by chance 3.8 %"),
    "detail_words": Metric("Words read", _PERCENT, "likewise, among 40 words"),
    "detail_lines": Metric("Thin lines", _PERCENT, "pixels of lines one pixel wide that keep half of their ink"),
    "detail_contrast": Metric("Contrast of thin lines", _PERCENT, "how much more ink they have than what is around"),
    "detail_texture": Metric("Textures", _PERCENT, "spectral energy of stripes that is kept in phase"),
    "detail_psnr_db": Metric("Detail PSNR", "{:.2f} dB", "of drawn words, lines and textures"),
    "detail_ssim": Metric("Detail SSIM", "{:.3f}", ""),
    **_vtbench(),
    "mse": Metric("Reconstruction MSE", "{:.4f}", "mean squared error, pixels in [-1, 1]"),
    "codebook_use": Metric("Codebook use", _PERCENT,
        "distinct codes that the held-out images have, of those that they could"),
    "codebook_perplexity": Metric("Codebook perplexity", "{:.1f}",
        "codes in even use that would carry as much"),
    "bits_per_dimension": Metric("Bits per dimension", "{:.3f}",
        "held-out codes under the model, per pixel value"),
    "bits_per_code": Metric("Bits per code", "{:.2f}", "likewise, per code"),
    "bits_per_dimension_bound": Metric("Bits per dimension, at most", "{:.3f}",
        "likewise, where orders are drawn: the mean over orders bounds it from above"),
    "bits_per_code_bound": Metric("Bits per code, at most", "{:.2f}", "likewise, per code"),
    "tokenizer_parameters": Metric("Parameters, tokenizer", _COUNT, ""),
    "generator_parameters": Metric("Parameters, generator", _COUNT, ""),
    "train_seconds": Metric("Training time", _TIME, "tokenizer and generator together"),
    "tokenizer_train_seconds": Metric("… tokenizer", _TIME, ""),
    "generator_train_seconds": Metric("… generator", _TIME, ""),
    "images_per_second": Metric("Sampling speed", "{:.1f} images/s", "after compilation, batched"),
    "sampling_passes": Metric("Sampling passes", "{:.3g}", "through the generator, for an image"),
    "sampling_flops": Metric("Sampling FLOPs", _COUNT, "products, for an image; guidance and decoder among them"),
    "training_images_per_second": Metric("Training speed", "{:.0f} images/s", "generator, steady state"),
    "training_flops": Metric("Training FLOPs", _COUNT, "products of all updates of the generator"),
}
# fmt: on


def levels(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """How each level uses the codebook: (name, use, perplexity) as text."""
    from vargen.tokenizers import usage  # with jax, for which pictures alone need not wait

    shown = METRICS[usage.USE], METRICS[usage.PERPLEXITY]
    return [
        (
            f"Codebook, level {level}",
            *(metric.show(value) for metric, value in zip(shown, values, strict=True)),
        )
        for level, values in usage.by_level(metrics).items()
    ]
