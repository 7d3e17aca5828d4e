// One binary for every x86-64: the loader picks the widest variant that the processor has.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define POKEGAN_CLONES __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define POKEGAN_CLONES
#endif
