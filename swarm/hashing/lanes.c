/*
 * SHA-512 of several runs of a file side by side, one in each lane of a vector register.
 *
 * SHA-512 of one run is a chain: no wide register makes it faster. Grains of a blob do not wait for each other, as
 * each begins with a chaining value of its own. So word i of grain 1, of grain 2, ... share a register: FIPS 180-4
 * is in rounds.h, once for all instruction sets; here is what differs between these, and reading from files.
 *
 * Deciding which runs go together, padding, and what a result is worth is the business of lanes.py, which loads
 * this through ctypes (nothing of Python is needed to build it) and believes nothing before it has tested it.
 * Where the compiler or the processor is another one, there is a library without kernels.
 */

#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#define BLOCK 128
#define MOST_LANES 8

typedef void compress(uint8_t *const *states, const uint8_t *const *data, size_t blocks);

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

/* FIPS 180-4, 4.2.3. */
static const uint64_t K[80] = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
    0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
    0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
    0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
    0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70,
    0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
    0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30,
    0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b,
    0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
    0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b,
    0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};

typedef uint64_t four __attribute__((vector_size(32)));
typedef uint64_t eight __attribute__((vector_size(64)));

/* GCC's own order of additions is a longer chain: a sixth slower with four lanes. */
#if defined(__clang__)
#define FOR(set) __attribute__((target(set)))
#else
#define FOR(set) __attribute__((target(set), optimize("O3", "no-tree-reassoc")))
#endif
#define AVX2 FOR("avx2")
#define AVX512 FOR("avx512f,avx512bw,avx512vl")

/* Where each byte of two words comes from, twice or four times. */
#define TWICE(...) __VA_ARGS__, __VA_ARGS__
static const uint8_t REVERSED[64] __attribute__((aligned(64))) = {
    TWICE(TWICE(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8))};
static const uint8_t TURNED[32] __attribute__((aligned(64))) = {
    TWICE(1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11, 12, 13, 14, 15, 8)};

AVX2 static inline void transpose_four(four *rows)
{
    __m256i r0 = (__m256i)rows[0], r1 = (__m256i)rows[1], r2 = (__m256i)rows[2], r3 = (__m256i)rows[3];
    __m256i a = _mm256_unpacklo_epi64(r0, r1), b = _mm256_unpackhi_epi64(r0, r1);
    __m256i c = _mm256_unpacklo_epi64(r2, r3), d = _mm256_unpackhi_epi64(r2, r3);
    rows[0] = (four)_mm256_permute2x128_si256(a, c, 0x20);
    rows[1] = (four)_mm256_permute2x128_si256(b, d, 0x20);
    rows[2] = (four)_mm256_permute2x128_si256(a, c, 0x31);
    rows[3] = (four)_mm256_permute2x128_si256(b, d, 0x31);
}

/* Pairs of words within 128 bits, then the four 128 bits of a register in two steps. */
AVX512 static inline void transpose_eight(eight *rows)
{
    __m512i t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi64((__m512i)rows[i], (__m512i)rows[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi64((__m512i)rows[i], (__m512i)rows[i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        for (int j = i; j < 8; j += 4) {
            u[j] = _mm512_shuffle_i64x2(t[j], t[j + 2], 0x88);
            u[j + 2] = _mm512_shuffle_i64x2(t[j], t[j + 2], 0xdd);
        }
        for (int j = i; j < 4; j += 2) {
            rows[j] = (eight)_mm512_shuffle_i64x2(u[j], u[j + 4], 0x88);
            rows[j + 4] = (eight)_mm512_shuffle_i64x2(u[j], u[j + 4], 0xdd);
        }
    }
}

/* Neither rotation nor operations of three operands: sixteen registers, and twice as many instructions. */
#define NAME four_avx2
#define TARGET AVX2
#define LANES 4
#define WORD four
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), (__m256i)(v))
#define REVERSE(v) (four)_mm256_shuffle_epi8((__m256i)(v), _mm256_load_si256((const __m256i *)REVERSED))
#define TRANSPOSE transpose_four
#define ROTATE(x, n) ((x >> n) | (x << (64 - n)))
#define ROTATE8(x) (four)_mm256_shuffle_epi8((__m256i)x, _mm256_load_si256((const __m256i *)TURNED))
#define XOR3(x, y, z) ((x) ^ (y) ^ (z))
#define CHOOSE(x, y, z) (z ^ (x & (y ^ z)))
#define MAJORITY(x, y, z) (y ^ ((x ^ y) & (y ^ z))) /* y ^ z was the last round's x ^ y */
#include "rounds.h"

/* Half registers: for up to four runs, and as fast as whole ones where these are halved inside (Zen 4). */
#define NAME four_avx512
#define TARGET AVX512
#define LANES 4
#define WORD four
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), (__m256i)(v))
#define REVERSE(v) (four)_mm256_shuffle_epi8((__m256i)(v), _mm256_load_si256((const __m256i *)REVERSED))
#define TRANSPOSE transpose_four
#define ROTATE(x, n) (four)_mm256_ror_epi64((__m256i)x, n)
#define ROTATE8(x) ROTATE(x, 8)
#define TERNARY(x, y, z, truth) (four)_mm256_ternarylogic_epi64((__m256i)(x), (__m256i)(y), (__m256i)(z), truth)
#define XOR3(x, y, z) TERNARY(x, y, z, 0x96)
#define CHOOSE(x, y, z) TERNARY(x, y, z, 0xca)
#define MAJORITY(x, y, z) TERNARY(x, y, z, 0xe8)
#include "rounds.h"
#undef TERNARY

#define NAME eight_avx512
#define TARGET AVX512
#define LANES 8
#define WORD eight
#define LOAD(p) _mm512_loadu_si512((const void *)(p))
#define STORE(p, v) _mm512_storeu_si512((void *)(p), (__m512i)(v))
#define REVERSE(v) (eight)_mm512_shuffle_epi8((__m512i)(v), _mm512_load_si512((const void *)REVERSED))
#define TRANSPOSE transpose_eight
#define ROTATE(x, n) (eight)_mm512_ror_epi64((__m512i)x, n)
#define ROTATE8(x) ROTATE(x, 8)
#define TERNARY(x, y, z, truth) (eight)_mm512_ternarylogic_epi64((__m512i)(x), (__m512i)(y), (__m512i)(z), truth)
#define XOR3(x, y, z) TERNARY(x, y, z, 0x96)
#define CHOOSE(x, y, z) TERNARY(x, y, z, 0xca)
#define MAJORITY(x, y, z) TERNARY(x, y, z, 0xe8)
#include "rounds.h"
#undef TERNARY

#define HAS_AVX2 __builtin_cpu_supports("avx2")
#define HAS_AVX512                                                                                             \
    (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))

/* Kernel number i, and how many lanes it has; 0 if this processor or its system lacks what it needs. */
static int kernel(int i, compress **run)
{
    switch (i) {
    case 0: *run = four_avx2; return HAS_AVX2 ? 4 : 0;
    case 1: *run = four_avx512; return HAS_AVX512 ? 4 : 0;
    case 2: *run = eight_avx512; return HAS_AVX512 ? 8 : 0;
    default: return 0;
    }
}

#else

static int kernel(int i, compress **run)
{
    (void)i, (void)run;
    return 0;
}

#endif

int swarm_lanes(int i)
{
    compress *run;
    return kernel(i, &run);
}

/*
 * Hash `blocks` blocks of each of `count` runs (at most as many as the kernel has lanes) of open files, from their
 * offsets on, into their states (64 bytes each). In steps, so that all fits into the second-level cache:
 * `buffer` has room for MOST_LANES times `step` blocks and one more.
 *
 * 0 if it was done; else errno, or -1 if a file is shorter, or -2 for a kernel that is none: the states are no good.
 */
int swarm_lanes_hash(int i, int count, const int *fds, const int64_t *offsets, uint8_t *states, uint64_t blocks,
                     uint8_t *buffer, size_t step)
{
    compress *run;
    int lanes = kernel(i, &run);
    if (count < 1 || count > lanes) return -2;
    const uint8_t *data[MOST_LANES];
    uint8_t *into[MOST_LANES], idle[64] = {0};
    /* A block apart, or lanes' bytes would contend for the same lines of the cache. */
    for (int lane = 0; lane < lanes; lane++) {
        data[lane] = buffer + (lane < count ? lane : 0) * (step + 1) * BLOCK;
        into[lane] = lane < count ? states + 64 * lane : idle;
    }
    for (uint64_t done = 0; done < blocks; done += step) {
        if (step > blocks - done) step = blocks - done;
        for (int lane = 0; lane < count; lane++) {
            for (size_t got = 0; got < step * BLOCK;) {
                ssize_t more = pread(fds[lane], (uint8_t *)data[lane] + got, step * BLOCK - got,
                                     offsets[lane] + done * BLOCK + got);
                if (more < 0 && errno == EINTR) continue;
                if (more <= 0) return more ? errno : -1;
                got += more;
            }
        }
        run(into, data, step);
    }
    return 0;
}
