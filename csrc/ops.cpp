// Every operator's schema, in one place. Back ends register their kernels in cpu/ and cuda/.
#include <Python.h>
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(pokegan, library) {
  library.def(
      "batch_gather(Tensor images, Tensor indices, Tensor? flip, Tensor? shift, "
      "int[] background, ScalarType dtype) -> Tensor");
  library.def(
      "diff_augment(Tensor images, Tensor step, Tensor samples, int seed, int stream, "
      "bool colour, bool translation, bool cutout, float fill, bool linear) -> Tensor");
  library.def(
      "diff_augment_adjoint(Tensor gradient, Tensor step, Tensor samples, int seed, int stream, "
      "bool colour, bool translation, bool cutout) -> Tensor");
  library.def(
      "spectral_iterate(Tensor[] weights, Tensor(a!)[] u, Tensor(b!)[] v, int[] dims, "
      "int iterations, float eps) -> (Tensor, Tensor, Tensor)");
  library.def(
      "spectral_sigma(Tensor[] weights, Tensor[] u, Tensor[] v, int[] dims) "
      "-> (Tensor, Tensor, Tensor)");
  library.def(
      "spectral_scale(Tensor[] weights, Tensor sigma, Tensor u, Tensor v, int[] dims, "
      "ScalarType dtype) -> Tensor[]");
  library.def(
      "spectral_scale_backward(Tensor[] gradients, Tensor[] weights, Tensor sigma, Tensor u, "
      "Tensor v, int[] dims) -> Tensor[]");

  // Counted randomness: [B] samples to [B, count]; pure functions of their arguments.
  library.def(
      "random_words(int seed, int stream, Tensor step, Tensor samples, int count) -> Tensor");
  library.def(
      "random_uniform(int seed, int stream, Tensor step, Tensor samples, int count, "
      "bool symmetric) -> Tensor");
  library.def(
      "random_normal(int seed, int stream, Tensor step, Tensor samples, int count, "
      "float mean=0.0, float std=1.0, ScalarType dtype=float) -> Tensor");

  // Dropout of values, or of whole feature maps; its own gradient.
  library.def(
      "dropout(Tensor values, Tensor step, Tensor samples, int seed, int stream, float p, "
      "bool maps) -> Tensor");

  // The same with its mask, a bit for each value of maps in channels_last memory, or of rows; and
  // that mask again, which is the gradient of both. CPU only.
  library.def(
      "dropout_kept(Tensor values, Tensor step, Tensor samples, int seed, int stream, float p) "
      "-> (Tensor, Tensor)");
  library.def("dropout_again(Tensor values, Tensor kept, float p) -> Tensor");

  // The loss, and its derivatives by the logits, real and fake. A rule is (real_low, real_high,
  // fake_low, fake_high, swap): one list, because each argument adds to the cost of a call.
  library.def(
      "soft_labels(Tensor real, Tensor fake, Tensor samples, Tensor step, int seed, int stream, "
      "int form, float[] rule) -> (Tensor, Tensor, Tensor)");
  library.def(
      "label_targets(Tensor samples, Tensor step, int seed, int stream, float[] rule) -> Tensor");

  // Convolutions of bfloat16 channels_last maps; weights in float32 or bfloat16. They and the
  // gradient by the weight, of a convolution that makes `small` of `large`, are each other's
  // gradients. `units`: 0 the widest the processor has, 1 AVX512-BF16, 2 AMX. `winograd`: by
  // minimal filtering: 4 x 4 and stride 1 or 2, or 3 x 3 and stride 1; at least 32 channels on both
  // sides.
  library.def(
      "conv2d_bf16(Tensor input, Tensor weight, Tensor? bias, int stride, int padding, "
      "int units=0, bool winograd=False) -> Tensor");
  library.def(
      "conv_transpose2d_bf16(Tensor input, Tensor weight, Tensor? bias, int stride, int padding, "
      "int[] output_padding, int units=0, bool winograd=False) -> Tensor");
  // The same, and what `batch_norm_moments` makes of the result.
  library.def(
      "conv2d_moments_bf16(Tensor input, Tensor weight, Tensor? bias, int stride, int padding, "
      "int units=0) -> (Tensor, Tensor)");
  library.def(
      "conv_transpose2d_moments_bf16(Tensor input, Tensor weight, Tensor? bias, int stride, "
      "int padding, int[] output_padding, int units=0) -> (Tensor, Tensor)");
  // The same as the gradient of act(norm(maps)), and what `batch_norm_act_sums` makes of that.
  library.def(
      "conv2d_norm_sums_bf16(Tensor input, Tensor weight, int stride, int padding, Tensor maps, "
      "Tensor moments, Tensor? norm_weight, Tensor? norm_bias, float eps, float slope, "
      "int units=0) -> (Tensor, Tensor)");
  library.def(
      "conv_transpose2d_norm_sums_bf16(Tensor input, Tensor weight, int stride, int padding, "
      "int[] output_padding, Tensor maps, Tensor moments, Tensor? norm_weight, Tensor? norm_bias, "
      "float eps, float slope, int units=0) -> (Tensor, Tensor)");
  library.def(
      "conv2d_weight_bf16(Tensor large, Tensor small, int[] kernel, int stride, int padding, "
      "ScalarType dtype, int units=0, bool winograd=False) -> Tensor");
  // The same of float32, each value split into 2 or 3 bfloat16 that add up to it.
  library.def(
      "conv2d_split(Tensor input, Tensor weight, Tensor? bias, int stride, int padding, "
      "int parts, int units=0) -> Tensor");
  library.def(
      "conv_transpose2d_split(Tensor input, Tensor weight, Tensor? bias, int stride, int padding, "
      "int[] output_padding, int parts, int units=0) -> Tensor");
  library.def(
      "conv2d_weight_split(Tensor large, Tensor small, int[] kernel, int stride, int padding, "
      "int parts, int units=0) -> Tensor");
  library.def("conv_units() -> int");

  // Batch norm and the activation behind it, t or slope * t below 0. `moments` is [2, C]: means and
  // variances; `sums` is [2, C]: the gradients by weight and bias, of `count` rows.
  // `units`: 0 the widest the processor has, 1 those of any.
  library.def("batch_norm_moments(Tensor input, int units=0) -> Tensor");
  library.def(
      "batch_norm_act(Tensor input, Tensor moments, Tensor? weight, Tensor? bias, float eps, "
      "float slope, int units=0) -> Tensor");
  library.def(
      "batch_norm_act_sums(Tensor gradient, Tensor input, Tensor moments, Tensor? weight, "
      "Tensor? bias, float eps, float slope, int units=0) -> Tensor");
  library.def(
      "batch_norm_act_backward(Tensor gradient, Tensor input, Tensor moments, Tensor? weight, "
      "Tensor? bias, Tensor sums, int count, float eps, float slope, int units=0) -> Tensor");

  // Running statistics moved by `weight` to those of `count` rows: the variance without its bias.
  library.def(
      "batch_norm_track_(Tensor(a!) mean, Tensor(b!) variance, Tensor moments, float weight, "
      "int count) -> ()");

  // The activation alone, and its gradient by its result.
  library.def("activate_(Tensor(a!) input, float slope, int units=0) -> ()");
  library.def(
      "activate_backward(Tensor gradient, Tensor result, float slope, int units=0) -> Tensor");
  library.def("tanh(Tensor input) -> Tensor");

  // Maps of AEGAN's layers, channels_last. `everywhere` is [N, E]: the same at every pixel.
  library.def("shuffle_cat(Tensor maps, Tensor everywhere, int before, int after) -> Tensor");
  library.def(
      "shuffle_cat_backward(Tensor gradient, int everywhere, int before, int after) "
      "-> (Tensor, Tensor)");
  library.def("upsample_cat(Tensor maps, Tensor skip) -> Tensor");
  library.def("upsample_cat_backward(Tensor gradient, int others) -> (Tensor, Tensor)");
  library.def("mix_colours(Tensor scores, Tensor palettes) -> Tensor");
  library.def(
      "mix_colours_backward(Tensor gradient, Tensor scores, Tensor palettes) "
      "-> (Tensor, Tensor)");
}

// Importing the module is what registers the operators; it holds nothing else.
extern "C" PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
