/* SPDX-License-Identifier: Apache-2.0 */
#include "link/policy.h"
#include "link/user.h"
#include "os/err.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Lines of rules; the last line is a published port. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const struct net_endpoint to = { net_addr4(192, 0, 2, 1), 443 };
	char *text = malloc(len + 1), *line, *save = NULL, *last = NULL;
	struct policy *p = policy_create();
	struct link_publish publish;
	struct err err;

	if (!text || !p)
		abort();
	memcpy(text, data, len);
	text[len] = '\0';
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		(void)policy_add(p, line, &err);
		last = line;
	}
	policy_learn(p, "www.example.org", &to.addr, 60, 1000);
	(void)policy_allows(p, POLICY_TCP, &to, 2000);
	if (last)
		(void)link_publish_parse(last, &publish, &err);
	policy_destroy(p);
	free(text);
	return 0;
}
