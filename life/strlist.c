/* SPDX-License-Identifier: Apache-2.0 */
#include "life/strlist.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int strings_add(struct strings *list, const char *text)
{
	char **more = realloc(list->v, (list->n + 2) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	list->v = more;
	more[list->n + 1] = NULL;
	more[list->n] = strdup(text);
	if (!more[list->n])
		return -ENOMEM;
	list->n++;
	return 0;
}

int strings_add_all(struct strings *list, const char *const *texts)
{
	for (; texts && *texts; texts++)
		if (strings_add(list, *texts) < 0)
			return -ENOMEM;
	return 0;
}

const char *strings_value(const struct strings *list, const char *key)
{
	size_t len = strlen(key);

	for (size_t i = 0; i < list->n; i++)
		if (strncmp(list->v[i], key, len) == 0 && list->v[i][len] == '=')
			return list->v[i] + len + 1;
	return NULL;
}

void strings_finish(struct strings *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->v[i]);
	free(list->v);
	*list = (struct strings){ .n = 0 };
}
