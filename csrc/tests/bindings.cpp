// The raw arithmetic of the kernels for pytest: a module of the CMake build, never installed.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <vector>

#include "../batch_gather.h"
#include "../diff_augment.h"
#include "../philox.h"

namespace py = pybind11;
using namespace pokegan;

namespace {

std::array<uint32_t, 4> philox(const std::array<uint32_t, 4>& counter,
                               const std::array<uint32_t, 2>& key) {
  const Words4 words =
      philox4x32({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  return {words.word[0], words.word[1], words.word[2], words.word[3]};
}

std::vector<uint32_t> words(uint64_t seed, uint32_t stream, uint32_t step, uint32_t sample,
                            uint32_t count) {
  std::vector<uint32_t> result;
  for (uint32_t i = 0; i < count; ++i) {
    result.push_back(random_words({seed, stream, step}, sample, i / 4).word[i % 4]);
  }
  return result;
}

// Rows and columns of the cutout as they are after clipping to the picture.
py::tuple diff_augment_parameters(uint64_t seed, uint32_t stream, uint32_t step, uint32_t sample,
                                  int64_t height, int64_t width) {
  const Augmentation chosen =
      augmentation_of({seed, stream, step}, sample, {true, true, true}, height, width);
  const Region& hole = chosen.hole;
  return py::make_tuple(chosen.brightness, chosen.saturation, chosen.contrast, chosen.down,
                        chosen.right, py::make_tuple(hole.top, hole.bottom, hole.left, hole.right));
}

}  // namespace

PYBIND11_MODULE(pokegan_kernels, module) {
  module.def("philox", &philox, py::arg("counter"), py::arg("key"));
  module.def("words", &words, py::arg("seed"), py::arg("stream"), py::arg("step"),
             py::arg("sample"), py::arg("count"));
  module.def("uniform_from", [](uint32_t word) { return uniform_from(word); }, py::arg("word"));
  module.def("normalise", [](uint8_t byte) { return normalise(byte); }, py::arg("byte"));
  module.def("diff_augment_parameters", &diff_augment_parameters, py::arg("seed"),
             py::arg("stream"), py::arg("step"), py::arg("sample"), py::arg("height"),
             py::arg("width"));
}
