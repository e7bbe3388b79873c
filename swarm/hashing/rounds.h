/*
 * One kernel: SHA-512 (FIPS 180-4) of LANES runs of blocks side by side. lanes.c includes this once for each
 * instruction set, with NAME, TARGET, LANES, the vector type WORD, and LOAD, STORE, REVERSE, TRANSPOSE, ROTATE,
 * ROTATE8, XOR3, CHOOSE and MAJORITY defined for it.
 *
 * A vector holds the same word of every lane, so the arithmetic of section 6.4.2 is written once and done for all
 * lanes at a time. In memory the bytes lie the other way round, lane by lane: LANES vectors of LANES words are
 * loaded, one from each lane, their words' bytes reversed (they are big endian), and that square transposed. Two
 * or four squares are a block, one or two are the chaining values, which leave the way they came.
 */

/*
 * Step 3 for one j. The letters move on by being called differently in the next round. A word that was used makes
 * room for the one needed sixteen rounds later (step 1), so that sixteen are enough. Order and parentheses are
 * what was measured to be fastest: what comes from e and a is added last, because the next round waits for it.
 */
#define ROUND(a, b, c, d, e, f, g, h, j, NEXT)                                                                 \
    do {                                                                                                       \
        WORD t1 = h + (w[j] + k[j]) + CHOOSE(e, f, g) + XOR3(ROTATE(e, 14), ROTATE(e, 18), ROTATE(e, 41));     \
        NEXT(j);                                                                                               \
        d += t1;                                                                                               \
        h = t1 + MAJORITY(a, b, c) + XOR3(ROTATE(a, 28), ROTATE(a, 34), ROTATE(a, 39));                        \
    } while (0)

#define EXPAND(j)                                                                                              \
    do {                                                                                                       \
        WORD x = w[(j + 1) & 15], y = w[(j + 14) & 15];                                                        \
        w[j] += w[(j + 9) & 15] + XOR3(ROTATE(x, 1), ROTATE8(x), x >> 7)                                       \
                + XOR3(ROTATE(y, 19), ROTATE(y, 61), y >> 6);                                                  \
    } while (0)

#define NOTHING(j)

#define EIGHT(j, NEXT)                                                                                         \
    do {                                                                                                       \
        ROUND(a, b, c, d, e, f, g, h, j + 0, NEXT);                                                            \
        ROUND(h, a, b, c, d, e, f, g, j + 1, NEXT);                                                            \
        ROUND(g, h, a, b, c, d, e, f, j + 2, NEXT);                                                            \
        ROUND(f, g, h, a, b, c, d, e, j + 3, NEXT);                                                            \
        ROUND(e, f, g, h, a, b, c, d, j + 4, NEXT);                                                            \
        ROUND(d, e, f, g, h, a, b, c, j + 5, NEXT);                                                            \
        ROUND(c, d, e, f, g, h, a, b, j + 6, NEXT);                                                            \
        ROUND(b, c, d, e, f, g, h, a, j + 7, NEXT);                                                            \
    } while (0)

/* Go on from each lane's chaining value (64 bytes, big endian), which is replaced by the one after its blocks. */
TARGET static void NAME(uint8_t *const *states, const uint8_t *const *data, size_t blocks)
{
    WORD s[8], w[16];
    for (int at = 0; at < 8; at += LANES) {
        for (int lane = 0; lane < LANES; lane++) s[at + lane] = REVERSE(LOAD(states[lane] + 8 * at));
        TRANSPOSE(s + at);
    }
    for (size_t block = 0; block < blocks; block++) {
        for (int at = 0; at < 16; at += LANES) {
            for (int lane = 0; lane < LANES; lane++)
                w[at + lane] = REVERSE(LOAD(data[lane] + 128 * block + 8 * at));
            TRANSPOSE(w + at);
        }
        WORD a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
        const uint64_t *k = K;
        for (; k < K + 64; k += 16) {
            EIGHT(0, EXPAND);
            EIGHT(8, EXPAND);
        }
        EIGHT(0, NOTHING);
        EIGHT(8, NOTHING);
        s[0] += a, s[1] += b, s[2] += c, s[3] += d, s[4] += e, s[5] += f, s[6] += g, s[7] += h;
    }
    for (int at = 0; at < 8; at += LANES) {
        TRANSPOSE(s + at);
        for (int lane = 0; lane < LANES; lane++) STORE(states[lane] + 8 * at, REVERSE(s[at + lane]));
    }
}

#undef ROUND
#undef EXPAND
#undef NOTHING
#undef EIGHT
#undef NAME
#undef TARGET
#undef LANES
#undef WORD
#undef LOAD
#undef STORE
#undef REVERSE
#undef TRANSPOSE
#undef ROTATE
#undef ROTATE8
#undef XOR3
#undef CHOOSE
#undef MAJORITY
