/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Internet checksum.  Words of 32 bits are added into 64-bit lanes, so that no
 * carry is lost and the compiler may use vectors; the order of bytes in a word does not
 * matter to a one's complement sum (RFC 1071, 2 B).
 */
#include "net/checksum.h"
#include "net/wire.h"

typedef uint32_t word32 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint64_t lane64 __attribute__((vector_size(16)));

static lane64 low_halves(word32 w)
{
	return (lane64)w & 0xffffffff;
}

static lane64 high_halves(word32 w)
{
	return (lane64)w >> 32;
}

uint64_t sum_bytes(const void *data, size_t len, uint64_t sum)
{
	const uint8_t *at = (const uint8_t *)data;
	lane64 a = { 0 }, b = { 0 };
	uint32_t word;
	uint16_t half;
	uint8_t last[2];

	for (; len >= 64; at += 64, len -= 64) {	/* lanes overflow after 2^32 words */
		const word32 *w = (const word32 *)at;

		a += low_halves(w[0]) + high_halves(w[0]);
		b += low_halves(w[1]) + high_halves(w[1]);
		a += low_halves(w[2]) + high_halves(w[2]);
		b += low_halves(w[3]) + high_halves(w[3]);
	}
	a += b;
	sum += (a[0] & 0xffffffff) + (a[0] >> 32) + (a[1] & 0xffffffff) + (a[1] >> 32);
	for (; len >= 4; at += 4, len -= 4) {
		__builtin_memcpy(&word, at, sizeof(word));
		sum += word;
	}
	if (len >= 2) {
		__builtin_memcpy(&half, at, sizeof(half));
		sum += half;
		at += 2;
		len -= 2;
	}
	if (len) {
		last[0] = *at;
		last[1] = 0;
		__builtin_memcpy(&half, last, sizeof(half));
		sum += half;
	}
	return sum;
}

uint64_t sum_spans(const struct net_span *spans, unsigned count, uint64_t sum)
{
	bool odd = false;
	uint16_t part;

	for (unsigned i = 0; i < count; i++) {
		if (!odd) {
			sum = sum_bytes(spans[i].data, spans[i].len, sum);
		} else {	/* its bytes are the other halves of words: RFC 1071, 2 B */
			part = sum_fold(sum_bytes(spans[i].data, spans[i].len, 0));
			sum += (uint16_t)(part << 8 | part >> 8);
		}
		odd ^= spans[i].len & 1;
	}
	return sum;
}

uint64_t sum_pseudo(const struct net_addr *src, const struct net_addr *dst, uint8_t proto,
		    uint32_t len)
{
	uint8_t tail[8];
	uint64_t sum;

	put32(tail, len);
	put32(tail + 4, proto);
	sum = sum_bytes(tail, sizeof(tail), 0);
	if (net_addr_is4(src))	/* the length and protocol differ only in zeroes */
		return sum + src->w[3] + dst->w[3];
	for (unsigned i = 0; i < 4; i++)
		sum += (uint64_t)src->w[i] + dst->w[i];
	return sum;
}
