/* SPDX-License-Identifier: Apache-2.0 */
/* The store's reference files. */
#include "os/err.h"
#include "store/store.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct store_ref ref;
	struct err err;

	if (store_ref_parse((const char *)data, len, &ref, &err) == 0 &&
	    (!store_digest_ok(ref.digest) || !ref.name[0] || strlen(ref.name) >= sizeof(ref.name) || !ref.type[0]))
		abort();
	return 0;
}
