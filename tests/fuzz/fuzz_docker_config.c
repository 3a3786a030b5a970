/* SPDX-License-Identifier: Apache-2.0 */
/* Docker's configuration file. */
#include "oci/auth.h"
#include "os/err.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct auth_login login;
	char helper[128];
	struct err err;

	if (auth_parse_config((const char *)data, len, "docker.io", &login, helper, &err) == 0 && strchr(helper, '/'))
		abort();
	(void)auth_parse_config((const char *)data, len, "localhost:5000", &login, helper, &err);
	return 0;
}
