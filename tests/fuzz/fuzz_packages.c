/* SPDX-License-Identifier: Apache-2.0 */
/* Debian's index of packages and Release file. */
#include "build/packages.h"
#include "os/err.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *text = malloc(len + 1), hex[65];
	struct packages all;
	struct err err;
	uint64_t size;

	if (!text)
		return 0;
	memcpy(text, data, len);
	text[len] = '\0';
	(void)packages_release_hash(text, "main/binary-amd64/Packages.xz", hex, &size, &err);
	if (packages_parse(text, len, &all, &err) == 0) {
		if (packages_choose(&all, "base-files,x", &err) == 0)
			for (size_t i = 0; i < all.nchosen; i++)
				if (strchr(all.at[all.chosen[i]].name, '/') || strstr(all.at[all.chosen[i]].filename, ".."))
					abort();
		packages_free(&all);
	}
	free(text);
	return 0;
}
