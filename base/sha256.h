/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4).  Freestanding; needs memcpy and memset. */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32	/* bytes of a digest */
#define SHA256_HEX_SIZE 65	/* with the terminating NUL */

struct sha256 {
	uint32_t h[8];
	uint64_t len;	/* bytes so far */
	uint8_t block[64];
};

void sha256_init(struct sha256 *ctx);
void sha256_update(struct sha256 *ctx, const void *data, size_t len);
/* Ends the message; @ctx must be initialised again before further use. */
void sha256_finish(struct sha256 *ctx, uint8_t ret_digest[SHA256_SIZE]);

/* Lower-case hexadecimal form. */
void sha256_hex(const uint8_t digest[SHA256_SIZE], char ret_hex[SHA256_HEX_SIZE]);

#endif /* BASE_SHA256_H */
