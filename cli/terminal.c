/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/terminal.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define FILTER_MAX 16384u

static struct termios saved;
static int raw_fd = -1;

void terminal_raw(bool interactive)
{
	int fd = interactive ? STDIN_FILENO : STDOUT_FILENO;
	struct termios raw;

	if (raw_fd >= 0 || tcgetattr(fd, &saved) < 0)
		return;
	raw = saved;
	if (interactive)
		cfmakeraw(&raw);
	else
		raw.c_oflag &= ~(tcflag_t)OPOST;	/* keys such as Ctrl-C keep their meaning here */
	if (tcsetattr(fd, TCSANOW, &raw) == 0)
		raw_fd = fd;
}

void terminal_restore(void)
{
	if (raw_fd >= 0)
		(void)tcsetattr(raw_fd, TCSANOW, &saved);
	raw_fd = -1;
}

bool terminal_size(uint16_t *rows, uint16_t *cols)
{
	struct winsize ws;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) < 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) < 0)
		return false;
	*rows = ws.ws_row;
	*cols = ws.ws_col;
	return ws.ws_row && ws.ws_col;
}

bool detach_keys_parse(const char *text, struct detach_keys *ret)
{
	*ret = (struct detach_keys){ .n = 0 };
	while (*text) {
		size_t len = strcspn(text, ",");

		if (ret->n == DETACH_KEYS_MAX)
			return false;
		if (len == 1)
			ret->key[ret->n++] = (uint8_t)text[0];
		else if (len == 6 && strncasecmp(text, "ctrl-", 5) == 0 && strchr("abcdefghijklmnopqrstuvwxyz@[\\]^_", text[5] | 0x20))
			ret->key[ret->n++] = text[5] & 0x1f;
		else
			return false;
		text += len;
		if (*text && !*++text)
			return false;
	}
	return true;
}

ssize_t detach_keys_filter(struct detach_keys *k, uint8_t *data, size_t len)
{
	uint8_t out[FILTER_MAX + DETACH_KEYS_MAX];
	size_t n = 0;

	if (!k->n || len > FILTER_MAX)
		return (ssize_t)len;
	for (size_t i = 0; i < len; i++) {
		if (data[i] == k->key[k->matched]) {
			if (++k->matched == k->n)
				return -ECANCELED;
			continue;
		}
		/* Not the sequence after all: what was held back goes first. */
		memcpy(out + n, k->key, k->matched);
		n += k->matched;
		k->matched = data[i] == k->key[0] && k->n > 1;
		if (!k->matched)
			out[n++] = data[i];
	}
	memcpy(data, out, n);
	return (ssize_t)n;
}
