/* SPDX-License-Identifier: Apache-2.0 */
/* A list of what a guest has read: what can be taken of it must be the same after it has been put into another. */
#include "machine/reads.h"
#include "os/blob.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct blob_reader in = { .at = data, .left = len };
	struct reads_range range;
	struct blob again = { 0 };
	size_t taken = 0;

	while (reads_take(&in, &range) == 1) {
		if (range.from > INT64_MAX || range.len > INT64_MAX - range.from || strlen(range.path) >= sizeof(range.path))
			abort();
		reads_put(&again, &range);
		taken = len - in.left;
	}
	if (again.failed || again.len != taken || memcmp(again.bytes ? again.bytes : data, data, taken) != 0)
		abort();
	blob_finish(&again);
	return 0;
}
