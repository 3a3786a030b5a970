/* SPDX-License-Identifier: Apache-2.0 */
/* A spec that can be read must read the same after it has been written. */
#include "machine/spec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char *text_of(const struct machine_spec *spec)
{
	char *text = machine_spec_text(spec);

	if (!text)
		abort();
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *input = malloc(len ? len : 1);	/* exact, so that a byte too many is noticed */
	struct machine_spec spec, again;
	char *text, *text_again;

	if (!input)
		return 0;
	memcpy(input, data, len);
	machine_spec_init(&spec);
	machine_spec_init(&again);
	if (machine_spec_read(&spec, input, len, NULL) == 0) {
		text = text_of(&spec);
		if (machine_spec_read(&again, text, strlen(text), NULL) < 0)
			abort();
		text_again = text_of(&again);
		if (strcmp(text, text_again) != 0 ||
		    machine_spec_check(&spec, NULL) != machine_spec_check(&again, NULL))
			abort();
		free(text_again);
		free(text);
	}
	machine_spec_finish(&spec);
	machine_spec_finish(&again);
	free(input);
	return 0;
}
