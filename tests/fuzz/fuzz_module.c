/* SPDX-License-Identifier: Apache-2.0 */
/* .modinfo of a kernel module: every value found lies inside, with its NUL. */
#include "build/module.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const keys[] = { "depends", "softdep", "" };

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		size_t cursor = 0, before = 0;
		const char *value;

		while ((value = module_info(data, len, keys[i], &cursor))) {
			if (cursor <= before || strlen(value) >= len)
				abort();
			before = cursor;
		}
	}
	return 0;
}
