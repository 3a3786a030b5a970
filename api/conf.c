/* SPDX-License-Identifier: Apache-2.0 */
#include "api/conf.h"

#include <stdarg.h>
#include <stdio.h>

void conf_add(struct conf_text *conf, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(conf->buf + conf->len, sizeof(conf->buf) - conf->len, fmt, ap);
	va_end(ap);
	conf->len += (size_t)n;
	if (conf->len >= sizeof(conf->buf))
		conf->len = sizeof(conf->buf) - 1;
}
