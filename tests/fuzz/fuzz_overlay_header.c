/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever is accepted must have fields that cannot lead out of the file. */
#include "block/overlay_header.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct overlay_header h, made;
	uint64_t sizes[2] = { 0 };

	if (overlay_header_parse(data, len, &h) == 0 &&
	    (h.size > OVERLAY_SIZE_MAX || h.data_off < OVERLAY_HEADER_BYTES || h.base_size > h.size))
		abort();
	/* What we make for sane sizes is accepted, and says the same. */
	memcpy(sizes, data, len < sizeof(sizes) ? len : sizeof(sizes));
	sizes[0] = (sizes[0] % OVERLAY_SIZE_MAX + 512) & ~511ull;
	sizes[1] %= sizes[0];
	overlay_header_make(&made, sizes[0], sizes[1]);
	if (overlay_header_parse(&made, sizeof(made), &h) < 0 || h.size != sizes[0] ||
	    h.base_size != sizes[1])
		abort();
	return 0;
}
