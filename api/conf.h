/* SPDX-License-Identifier: Apache-2.0 */
/* The text of the guest's configuration (abi/guest_conf.h) while it is put together. */
#ifndef API_CONF_H
#define API_CONF_H

#include "abi/guest_conf.h"

#include <stddef.h>

struct conf_text {
	char buf[GUEST_CONF_SIZE_MAX];	/* NUL-terminated */
	size_t len;
};

/* What does not fit is cut off: the guest then refuses the line. */
__attribute__((format(printf, 2, 3))) void conf_add(struct conf_text *conf, const char *fmt, ...);

#endif /* API_CONF_H */
