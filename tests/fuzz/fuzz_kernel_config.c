/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of features as a person writes them: the first line; and what Linux made of them: the others. */
#include "build/kernel_config.h"
#include "os/err.h"
#include "tests/fuzz/check.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *text = malloc(len + 1), *got, *config, *features, *again, *same;
	struct err err = { 0 };

	if (!text)
		return 0;
	memcpy(text, data, len);
	text[len] = '\0';
	got = text + strcspn(text, "\n");
	if (*got)
		*got++ = '\0';
	if (kernel_config_make(text, &config, &features, &err) == 0) {
		const char *missing = kernel_config_missing(config, got);

		/* What was chosen chooses the same again, and what was wanted lacks nothing of itself. */
		want(kernel_config_make(features, &again, &same, &err) == 0);
		want(strcmp(features, same) == 0 && strcmp(config, again) == 0);
		want(!kernel_config_missing(config, config));
		want(!missing || (missing >= config && missing < config + strlen(config)));
		free(again);
		free(same);
		free(config);
		free(features);
	} else {
		want(err.msg[0]);
	}
	free(text);
	return 0;
}
