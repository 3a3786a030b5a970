/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4).  Freestanding. */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32 /* bytes of a digest */
#define SHA256_HEX_SIZE 65 /* of its lower-case text, NUL included */

struct sha256 {
	uint32_t state[8];
	uint64_t bytes;	/* hashed so far */
	uint8_t block[64];	/* bytes % 64 of them wait here */
};

void sha256_init(struct sha256 *hash);
void sha256_add(struct sha256 *hash, const void *data, size_t len);
void sha256_finish(struct sha256 *hash, uint8_t ret_digest[SHA256_SIZE]);

/* Finishes @hash and writes the digest as lower-case text. */
void sha256_finish_hex(struct sha256 *hash, char ret_hex[SHA256_HEX_SIZE]);

/* HMAC-SHA-256 (RFC 2104) of @data: nobody makes the same without @key. */
void sha256_keyed(const uint8_t key[SHA256_SIZE], const void *data, size_t len, uint8_t ret_code[SHA256_SIZE]);

#endif /* BASE_SHA256_H */
