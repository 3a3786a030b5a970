/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 as FIPS 180-4, 6.2 states it, with a second block function for x86
 * processors that have the SHA instructions (SDM vol. 2, SHA256RNDS2).  Which
 * one runs is decided by CPUID, once: in a virtual machine that takes microseconds.
 */
#include "base/sha256.h"

#include "base/hex.h"

#include <stdbool.h>

#if defined(__x86_64__) && defined(__SSE2__) && !defined(SHA256_PORTABLE)
#define _MM_MALLOC_H_INCLUDED /* gcc's immintrin.h would ask for the C library's malloc */
#include <cpuid.h>
#include <immintrin.h>
#define HAVE_SHA_NI 1
#else
#define HAVE_SHA_NI 0
#endif

static const uint32_t k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t ror(uint32_t v, unsigned n)
{
	return v >> n | v << (32 - n);
}

static uint32_t get_be32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void blocks_portable(uint32_t state[8], const uint8_t *at, size_t count)
{
	for (; count; count--, at += 64) {
		uint32_t w[64], s[8];

		for (int i = 0; i < 16; i++)
			w[i] = get_be32(at + 4 * i);
		for (int i = 16; i < 64; i++) {
			uint32_t a = w[i - 15], b = w[i - 2];

			w[i] = w[i - 16] + w[i - 7] + (ror(a, 7) ^ ror(a, 18) ^ a >> 3) +
			       (ror(b, 17) ^ ror(b, 19) ^ b >> 10);
		}
		__builtin_memcpy(s, state, sizeof(s));
		for (int i = 0; i < 64; i++) {
			uint32_t t1 = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) +
				      ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
			uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
				      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

			__builtin_memmove(s + 1, s, 7 * sizeof(s[0]));
			s[4] += t1;
			s[0] = t1 + t2;
		}
		for (int i = 0; i < 8; i++)
			state[i] += s[i];
	}
}

#if HAVE_SHA_NI
static bool ask_for_sha_ni(void)
{
	unsigned a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1) || !(c & bit_SSSE3))
		return false;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

/* Threads that come first at once all find the same answer. */
static bool has_sha_ni(void)
{
	static enum { UNKNOWN, NO, YES } answer;
	int known = __atomic_load_n(&answer, __ATOMIC_RELAXED);

	if (known == UNKNOWN) {
		known = ask_for_sha_ni() ? YES : NO;
		__atomic_store_n(&answer, known, __ATOMIC_RELAXED);
	}
	return known == YES;
}

/*
 * The instructions keep the state as two vectors {A,B,E,F} and {C,D,G,H} and do
 * two rounds each; w[] is a ring of the last 16 message words, four a vector.
 */
__attribute__((target("sha,sse4.1,ssse3"))) static void blocks_sha_ni(uint32_t state[8],
								      const uint8_t *at,
								      size_t count)
{
	const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
	__m128i lo = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)state), 0xb1);
	__m128i hi = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(state + 4)), 0x1b);
	__m128i abef = _mm_alignr_epi8(lo, hi, 8), cdgh = _mm_blend_epi16(hi, lo, 0xf0);

	for (; count; count--, at += 64) {
		__m128i abef0 = abef, cdgh0 = cdgh, w[4];

		for (int i = 0; i < 16; i++) {
			__m128i *now = &w[i % 4], sum;

			if (i < 4) {
				*now = _mm_loadu_si128((const __m128i *)(const void *)(at + 16 * i));
				*now = _mm_shuffle_epi8(*now, swap);
			} else {
				__m128i prev = w[(i + 3) % 4];

				*now = _mm_sha256msg1_epu32(*now, w[(i + 1) % 4]);
				*now = _mm_add_epi32(*now, _mm_alignr_epi8(prev, w[(i + 2) % 4], 4));
				*now = _mm_sha256msg2_epu32(*now, prev);
			}
			sum = _mm_add_epi32(*now, _mm_loadu_si128((const __m128i *)(const void *)(k + 4 * i)));
			cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
			abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
		}
		abef = _mm_add_epi32(abef, abef0);
		cdgh = _mm_add_epi32(cdgh, cdgh0);
	}
	lo = _mm_shuffle_epi32(abef, 0x1b);
	hi = _mm_shuffle_epi32(cdgh, 0xb1);
	_mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(lo, hi, 0xf0));
	_mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(hi, lo, 8));
}
#endif

static void blocks(uint32_t state[8], const uint8_t *at, size_t count)
{
#if HAVE_SHA_NI
	if (has_sha_ni()) {
		blocks_sha_ni(state, at, count);
		return;
	}
#endif
	blocks_portable(state, at, count);
}

void sha256_init(struct sha256 *hash)
{
	*hash = (struct sha256){ .state = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
					    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 } };
}

void sha256_add(struct sha256 *hash, const void *data, size_t len)
{
	const uint8_t *at = data;
	size_t have = hash->bytes % 64;

	hash->bytes += len;
	if (have) {
		size_t n = len < 64 - have ? len : 64 - have;

		__builtin_memcpy(hash->block + have, at, n);
		at += n;
		len -= n;
		if (have + n < 64)
			return;
		blocks(hash->state, hash->block, 1);
	}
	if (len >= 64)
		blocks(hash->state, at, len / 64);
	if (len % 64)
		__builtin_memcpy(hash->block, at + len / 64 * 64, len % 64);
}

void sha256_finish(struct sha256 *hash, uint8_t ret_digest[SHA256_SIZE])
{
	static const uint8_t pad[64] = { 0x80 };
	uint64_t bits = hash->bytes * 8;
	uint8_t length[8];

	/* A one bit, zeros up to 8 bytes before a block's end, then the length. */
	sha256_add(hash, pad, 1 + (55 - hash->bytes % 64 + 64) % 64);
	for (int i = 0; i < 8; i++)
		length[i] = (uint8_t)(bits >> (56 - 8 * i));
	sha256_add(hash, length, sizeof(length));
	for (int i = 0; i < SHA256_SIZE; i++)
		ret_digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}

void sha256_finish_hex(struct sha256 *hash, char ret_hex[SHA256_HEX_SIZE])
{
	uint8_t digest[SHA256_SIZE];

	sha256_finish(hash, digest);
	hex_write(ret_hex, digest, sizeof(digest));
}

/* The key as a block, all of it changed by @with. */
static void begin_keyed(struct sha256 *hash, const uint8_t key[SHA256_SIZE], uint8_t with)
{
	uint8_t block[64];

	for (unsigned i = 0; i < sizeof(block); i++)
		block[i] = (uint8_t)((i < SHA256_SIZE ? key[i] : 0) ^ with);
	sha256_init(hash);
	sha256_add(hash, block, sizeof(block));
}

void sha256_keyed(const uint8_t key[SHA256_SIZE], const void *data, size_t len, uint8_t ret_code[SHA256_SIZE])
{
	struct sha256 hash;

	begin_keyed(&hash, key, 0x36);
	sha256_add(&hash, data, len);
	sha256_finish(&hash, ret_code);
	begin_keyed(&hash, key, 0x5c);
	sha256_add(&hash, ret_code, SHA256_SIZE);
	sha256_finish(&hash, ret_code);
}
