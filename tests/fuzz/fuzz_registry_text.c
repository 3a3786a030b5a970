/* SPDX-License-Identifier: Apache-2.0 */
/* What a registry sends: WWW-Authenticate, and manifests and indexes with the choice of a platform. */
#include "oci/auth.h"
#include "oci/manifest.h"
#include "os/err.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct auth_challenge challenge;
	static struct manifest manifest;
	char *text = strndup((const char *)data, len), type[MEDIA_TYPE_MAX];
	const char *json = (const char *)data;
	enum manifest_kind kind;
	struct index index;
	struct err err;
	int r;

	if (text)
		(void)auth_parse_challenge(text, &challenge, &err);
	free(text);
	if (manifest_kind(json, len, &kind, type, &err) == 0 && strlen(type) == 0)
		abort();
	(void)manifest_parse(json, len, &manifest, &err);
	if (manifest_parse_index(json, len, &index, &err) == 0) {
		(void)manifest_choose(&index, "", "linux/amd64", &r, &err);
		(void)manifest_choose(&index, "latest", "linux/arm/v7", &r, &err);
		manifest_free_index(&index);
	}
	return 0;
}
