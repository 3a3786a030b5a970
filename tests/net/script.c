/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser: one function for each rule of the grammar in script.h, directly on the text.
 * The first error is told and ends it: from then on, read->failed makes everything fail.
 */
#include "packetdrill.h"
#include "script.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define WORD_MAX 32u
#define SCRIPT_MAX (1u << 20)	/* bytes */

struct name {
	const char *name;
	int value;
};

struct reader {
	const char *path, *at;
	unsigned line;
	bool failed, v6;
	struct script *script;
};

#define NAME(symbol) { #symbol, symbol }

static const struct name names[] = {
	NAME(SOCK_STREAM), NAME(IPPROTO_TCP), NAME(SOL_SOCKET), NAME(SOL_TCP), NAME(SO_REUSEADDR),
	NAME(SO_ERROR), NAME(SO_RCVBUF), NAME(SO_LINGER), NAME(SO_KEEPALIVE), NAME(TCP_NODELAY),
	NAME(TCP_KEEPIDLE), NAME(TCP_KEEPINTVL), NAME(TCP_KEEPCNT), NAME(F_GETFL), NAME(F_SETFL),
	NAME(O_RDWR), NAME(O_NONBLOCK), NAME(SHUT_RD), NAME(SHUT_WR), NAME(SHUT_RDWR),
	NAME(MSG_DONTWAIT), NAME(POLLIN), NAME(POLLOUT), NAME(POLLERR), NAME(POLLHUP),
	{ "SIOCINQ", FIONREAD },
	NAME(EAGAIN), NAME(EINPROGRESS), NAME(EPIPE), NAME(ECONNRESET), NAME(ECONNREFUSED),
	NAME(ECONNABORTED), NAME(ETIMEDOUT), NAME(EHOSTUNREACH), NAME(ENETUNREACH), NAME(ENOTCONN),
	NAME(SOL_ROUX), NAME(ROUX_DEFER), NAME(ROUX_ANSWER), NAME(ROUX_REQUESTS), NAME(ROUX_FAILED),
	NAME(ROUX_TSO),
	{ NULL, 0 },
};

static const struct {
	const char *type, *code;	/* code NULL: has none */
	bool v6;
	uint8_t type_byte, code_byte;
} icmp_kinds[] = {
	{ "unreachable", "net_unreachable", false, 3, 0 },
	{ "unreachable", "host_unreachable", false, 3, 1 },
	{ "unreachable", "protocol_unreachable", false, 3, 2 },
	{ "unreachable", "port_unreachable", false, 3, 3 },
	{ "unreachable", "frag_needed", false, 3, 4 },
	{ "unreachable", "no_route", true, 1, 0 },
	{ "unreachable", "address_unreachable", true, 1, 3 },
	{ "unreachable", "port_unreachable", true, 1, 4 },
	{ "packet_too_big", NULL, true, 2, 0 },
};

/* Says so, with the place and, if there is a text, what comes there. */
__attribute__((format(printf, 2, 3))) static bool fail(struct reader *read, const char *format, ...)
{
	va_list args;

	if (read->failed)
		return false;
	read->failed = true;
	(void)printf("%s:%u: ", read->path, read->line);
	va_start(args, format);
	(void)vprintf(format, args);
	va_end(args);
	if (read->at && *read->at)
		(void)printf(" at \"%.*s\"", (int)strcspn(read->at, "\n"), read->at);
	(void)printf("\n");
	return false;
}

/* --- Words and numbers --------------------------------------------------------------------- */

static void skip_space(struct reader *read)
{
	for (;;) {
		if (!strncmp(read->at, "//", 2)) {
			read->at += strcspn(read->at, "\n");
		} else if (!strncmp(read->at, "/*", 2)) {
			const char *end = strstr(read->at, "*/");

			end = end ? end + 2 : read->at + strlen(read->at);
			for (; read->at < end; read->at++)
				read->line += *read->at == '\n';
		} else if (isspace((unsigned char)*read->at)) {
			read->line += *read->at++ == '\n';
		} else {
			return;
		}
	}
}

static bool in_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* True and passed, when @token comes next; a word must be the whole of it. */
static bool skip(struct reader *read, const char *token)
{
	size_t len = strlen(token);

	skip_space(read);
	if (read->failed || strncmp(read->at, token, len))
		return false;
	if (in_word(token[len - 1]) && in_word(read->at[len]))
		return false;
	read->at += len;
	return true;
}

static bool expect(struct reader *read, const char *token)
{
	return skip(read, token) || fail(read, "\"%s\" is missing", token);
}

static bool read_word(struct reader *read, char *word, size_t size)
{
	size_t len = 0;

	skip_space(read);
	while (in_word(read->at[len]))
		len++;
	if (!len || len >= size)
		return fail(read, "a word is missing");
	memcpy(word, read->at, len);
	word[len] = 0;
	read->at += len;
	return true;
}

static bool read_u32(struct reader *read, uint32_t *ret_number)
{
	unsigned long long number;
	char *end;

	skip_space(read);
	if (!isdigit((unsigned char)*read->at))
		return fail(read, "a number is missing");
	number = strtoull(read->at, &end, 10);
	if (number > UINT32_MAX)
		return fail(read, "the number is too large");
	read->at = end;
	*ret_number = (uint32_t)number;
	return true;
}

static bool name_value(struct reader *read, const char *word, int *ret_value)
{
	for (const struct name *name = names; name->name; name++) {
		if (!strcmp(name->name, word)) {
			*ret_value = name->value;
			return true;
		}
	}
	return fail(read, "the name %s is not known", word);
}

/* A NUMBER of the grammar. */
static bool read_number(struct reader *read, int32_t *ret_number)
{
	char word[WORD_MAX], *end;
	int value = 0;

	*ret_number = 0;
	do {
		skip_space(read);
		if (isdigit((unsigned char)*read->at) || *read->at == '-') {
			value = (int)strtol(read->at, &end, 0);
			read->at = end;
		} else if (!read_word(read, word, sizeof(word)) || !name_value(read, word, &value)) {
			return false;
		}
		*ret_number |= value;
	} while (skip(read, "|"));
	return true;
}

/* --- Packets ------------------------------------------------------------------------------- */

static bool read_flags(struct reader *read, uint8_t *ret_flags)
{
	static const char letters[] = "FSRP.";	/* from bit 0 on */
	const char *letter;

	skip_space(read);
	*ret_flags = 0;
	while (*read->at && (letter = strchr(letters, *read->at))) {
		*ret_flags |= (uint8_t)(1u << (letter - letters));
		read->at++;
	}
	return *ret_flags || fail(read, "flags are missing");
}

static bool read_range(struct reader *read, uint32_t *ret_begin, uint32_t *ret_end)
{
	return read_u32(read, ret_begin) && expect(read, ":") && read_u32(read, ret_end);
}

static bool read_seq(struct reader *read, struct script_packet *packet)
{
	uint32_t end;

	if (!read_range(read, &packet->seq, &end) || !expect(read, "(") ||
	    !read_u32(read, &packet->len) || !expect(read, ")"))
		return false;
	return end - packet->seq == packet->len || fail(read, "the length is not that of the range");
}

/* Appends @size bytes of @value, most significant first. */
static bool put(struct reader *read, struct script_packet *packet, uint32_t value, unsigned size)
{
	if (packet->options_len + size > SCRIPT_OPTIONS_MAX)
		return fail(read, "more than 40 bytes of options");
	while (size--)
		packet->options[packet->options_len++] = (uint8_t)(value >> 8 * size);
	return true;
}

static bool read_sack(struct reader *read, struct script_packet *packet)
{
	uint32_t at = packet->options_len, begin, end;

	if (!put(read, packet, 5 << 8, 2))
		return false;
	do {
		if (!read_range(read, &begin, &end) || !put(read, packet, begin, 4) ||
		    !put(read, packet, end, 4))
			return false;
		skip_space(read);
	} while (isdigit((unsigned char)*read->at));
	packet->options[at + 1] = (uint8_t)(packet->options_len - at);
	return true;
}

static bool read_option(struct reader *read, struct script_packet *packet)
{
	uint32_t a, b;

	if (skip(read, "nop"))
		return put(read, packet, 1, 1);
	if (skip(read, "mss"))
		return read_u32(read, &a) && put(read, packet, 2 << 8 | 4, 2) && put(read, packet, a, 2);
	if (skip(read, "wscale"))
		return read_u32(read, &a) && put(read, packet, 3 << 8 | 3, 2) && put(read, packet, a, 1);
	if (skip(read, "sackOK"))
		return put(read, packet, 4 << 8 | 2, 2);
	if (skip(read, "sack"))
		return read_sack(read, packet);
	if (skip(read, "TS"))
		return expect(read, "val") && read_u32(read, &a) && expect(read, "ecr") &&
		       read_u32(read, &b) && put(read, packet, 8 << 8 | 10, 2) &&
		       put(read, packet, a, 4) && put(read, packet, b, 4);
	return fail(read, "no such option");
}

static bool read_options(struct reader *read, struct script_packet *packet)
{
	if (!skip(read, "<"))
		return true;
	packet->any_options = skip(read, "...");
	if (!packet->any_options)
		do
			if (!read_option(read, packet))
				return false;
		while (skip(read, ","));
	if (packet->options_len % 4)
		return fail(read, "options are filled up to 4 bytes with nop");
	return expect(read, ">");
}

static bool read_segment(struct reader *read, struct script_packet *packet)
{
	uint32_t win;

	packet->win = -1;
	if (!read_flags(read, &packet->flags) || !read_seq(read, packet))
		return false;
	if (skip(read, "ack") && !read_u32(read, &packet->ack))
		return false;
	if (skip(read, "win")) {
		if (!read_u32(read, &win))
			return false;
		packet->win = (int32_t)(win & 0xffff);
	}
	return read_options(read, packet);
}

static bool read_icmp(struct reader *read, struct script_packet *packet)
{
	size_t kind = 0, count = sizeof(icmp_kinds) / sizeof(icmp_kinds[0]);
	char type[WORD_MAX], code[WORD_MAX];
	bool has_code;

	packet->icmp = true;
	if (!read_word(read, type, sizeof(type)))
		return false;
	skip_space(read);
	has_code = isalpha((unsigned char)*read->at) && strncmp(read->at, "mtu", 3);
	if (has_code && !read_word(read, code, sizeof(code)))
		return false;
	while (kind < count &&
	       (icmp_kinds[kind].v6 != read->v6 || strcmp(icmp_kinds[kind].type, type) ||
		has_code != !!icmp_kinds[kind].code || (has_code && strcmp(icmp_kinds[kind].code, code))))
		kind++;
	if (kind == count)
		return fail(read, "ICMP of IPv%c has no %s %s", read->v6 ? '6' : '4', type,
			    has_code ? code : "");
	packet->icmp_type = icmp_kinds[kind].type_byte;
	packet->icmp_code = icmp_kinds[kind].code_byte;
	if (skip(read, "mtu") && !read_u32(read, &packet->mtu))
		return false;
	return !skip(read, "[") || (read_seq(read, packet) && expect(read, "]"));
}

static bool read_packet(struct reader *read, struct script_event *event)
{
	return skip(read, "icmp") ? read_icmp(read, &event->packet) : read_segment(read, &event->packet);
}

/* --- Calls --------------------------------------------------------------------------------- */

static bool read_field(struct reader *read, const char *name, int32_t *ret_number)
{
	return expect(read, name) && expect(read, "=") && read_number(read, ret_number);
}

static bool read_poll(struct reader *read, struct script_arg *arg)
{
	arg->kind = ARG_POLL;
	if (!read_field(read, "fd", &arg->number[0]) || !expect(read, ",") ||
	    !read_field(read, "events", &arg->number[1]))
		return false;
	if (skip(read, ",") && !read_field(read, "revents", &arg->number[2]))
		return false;
	return expect(read, "}") && expect(read, "]");
}

static bool read_arg(struct reader *read, struct script_arg *arg)
{
	if (skip(read, "...")) {
		arg->kind = ARG_ELLIPSIS;
		return true;
	}
	if (skip(read, "{")) {
		arg->kind = ARG_LINGER;
		return read_field(read, "onoff", &arg->number[0]) && expect(read, ",") &&
		       read_field(read, "linger", &arg->number[1]) && expect(read, "}");
	}
	if (!skip(read, "[")) {
		arg->kind = ARG_NUMBER;
		return read_number(read, &arg->number[0]);
	}
	if (skip(read, "{"))
		return read_poll(read, arg);
	arg->kind = ARG_LIST;
	return read_number(read, &arg->number[0]) && expect(read, "]");
}

/* "ERRNO (words)", of which the words say nothing; or "(words)" alone. */
static bool read_errno(struct reader *read, struct script_call *call)
{
	char word[WORD_MAX];

	skip_space(read);
	if (isalpha((unsigned char)*read->at) &&
	    (!read_word(read, word, sizeof(word)) || !name_value(read, word, &call->error)))
		return false;
	if (!skip(read, "("))
		return !call->error || fail(read, "an error needs its text in parentheses");
	while (!skip(read, ")"))
		if (!read_word(read, word, sizeof(word)))
			return false;
	return true;
}

static bool read_call(struct reader *read, struct script_call *call)
{
	if (!read_word(read, call->name, sizeof(call->name)) || !expect(read, "("))
		return false;
	if (!skip(read, ")")) {
		do {
			if (call->count == SCRIPT_ARGS_MAX)
				return fail(read, "too many arguments");
			if (!read_arg(read, &call->args[call->count++]))
				return false;
		} while (skip(read, ","));
		if (!expect(read, ")"))
			return false;
	}
	return expect(read, "=") && read_number(read, &call->result) && read_errno(read, call);
}

/* --- Options, events ----------------------------------------------------------------------- */

/* Seconds, to microseconds. */
static bool read_time(struct reader *read, uint64_t *ret_us)
{
	char *end;

	skip_space(read);
	if (!isdigit((unsigned char)*read->at) && *read->at != '.')
		return fail(read, "a time is missing");
	*ret_us = (uint64_t)(strtod(read->at, &end) * 1e6 + 0.5);
	read->at = end[-1] == '.' ? end - 1 : end;
	return !skip(read, "...") || fail(read, "calls do not block");
}

static bool read_event(struct reader *read, struct script_event *event)
{
	event->relative = skip(read, "+");
	event->line = read->line;
	if (!read_time(read, &event->time))
		return false;
	if (skip(read, "<"))
		event->kind = EVENT_IN;
	else
		event->kind = skip(read, ">") ? EVENT_OUT : EVENT_CALL;
	return event->kind == EVENT_CALL ? read_call(read, &event->call) : read_packet(read, event);
}

static bool read_head(struct reader *read)
{
	while (skip(read, "--")) {
		if (skip(read, "ip_version=ipv4"))
			read->script->no6 = true;
		else if (skip(read, "ip_version=ipv6"))
			read->script->no4 = true;
		else if (skip(read, "so_flags="))
			(void)read_word(read, read->script->so_flags, sizeof(read->script->so_flags));
		else
			(void)fail(read, "no such option");
	}
	return !read->failed;
}

static bool read_events(struct reader *read)
{
	struct script_event **end = &read->script->events;

	for (skip_space(read); *read->at; skip_space(read)) {
		*end = calloc(1, sizeof(**end));
		if (!*end)
			abort();
		if (!read_event(read, *end))
			return false;
		end = &(*end)->next;
	}
	return read->script->events || fail(read, "nothing happens in it");
}

bool script_read(const char *path, bool v6, struct script *ret_script)
{
	struct reader read = { .path = path, .line = 1, .v6 = v6, .script = ret_script };
	FILE *file = fopen(path, "re");
	char *text = calloc(1, SCRIPT_MAX);
	bool good;

	memset(ret_script, 0, sizeof(*ret_script));
	if (!text)
		abort();
	if (!file || !fread(text, 1, SCRIPT_MAX - 1, file))
		fail(&read, "cannot be read");
	read.at = text;
	good = read_head(&read);
	if (good && !(v6 ? ret_script->no6 : ret_script->no4))
		good = read_events(&read);
	free(text);
	if (file)
		(void)fclose(file);
	return good;
}

void script_free(struct script *script)
{
	struct script_event *next;

	for (struct script_event *event = script->events; event; event = next) {
		next = event->next;
		free(event);
	}
	script->events = NULL;
}
