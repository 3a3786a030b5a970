/* SPDX-License-Identifier: Apache-2.0 */
/* Names of images: what is accepted formats to a name that means the same. */
#include "oci/reference.h"
#include "os/err.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *text = strndup((const char *)data, len), full[STORE_NAME_MAX], again[STORE_NAME_MAX];
	struct reference ref, other;
	struct err err;

	if (text && reference_parse(text, &ref, &err) == 0) {
		reference_name(&ref, full);
		if (reference_parse(full, &other, &err) < 0)
			abort();
		reference_name(&other, again);
		if (strcmp(full, again) != 0)
			abort();
		reference_familiar(&ref, again);
		if (reference_parse(again, &other, &err) < 0)
			abort();
		reference_name(&other, again);
		if (strcmp(full, again) != 0)
			abort();
	}
	free(text);
	return 0;
}
