/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of the control socket.  They are freed from the loop, never from within
 * one of their own callbacks: until then they are CONN_DEAD.
 */
#include "life/inside.h"

#include "abi/agent.h"
#include "os/loop.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNS_MAX 128u
#define IN_MAX (HTTP_HEAD_MAX + HTTP_BODY_MAX)

_Static_assert(IN_MAX >= AGENT_DATA_MAX + FRAME_HEADER, "a frame of a client fits");

/* ------------------------------------------------------------- end of a connection */

static void reap(void *ctx)
{
	struct monitor *m = ctx;

	for (struct conn **at = &m->conns, *c; (c = *at);) {
		if (c->mode != CONN_DEAD) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		stream_close(&c->stream);
		free(c->input);
		free(c);
		m->nconns--;
	}
	if (m->finished && !m->conns)
		loop_quit(m->loop);
	else
		monitor_rests(m);
}

void conn_close(struct conn *c)
{
	enum conn_mode mode = c->mode;

	if (mode == CONN_DEAD)
		return;
	c->mode = CONN_DEAD;
	stream_pause(&c->stream, true);
	if (mode == CONN_ATTACHED)
		command_client_gone(c);
	if (mode == CONN_RELAY)
		relay_end(c);
	guest_forget(c);
	if (c->creator)
		monitor_unwanted(c->m);
	(void)loop_post(c->m->loop, reap, c->m);	/* without memory: with the next one that closes */
}

void conn_finish(struct conn *c)
{
	if (c->mode != CONN_DEAD)
		stream_finish(&c->stream);
}

/* ------------------------------------------------------------------ answers */

void conn_text(struct conn *c, int status, const char *type, const char *text, size_t len)
{
	char head[256];
	int n = snprintf(head, sizeof(head), "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n", status,
			 http_reason(status), type, len, c->keep_alive ? "" : "Connection: close\r\n");

	c->mode = CONN_HTTP;
	(void)stream_write(&c->stream, head, (size_t)n);
	(void)stream_write(&c->stream, text, len);
	if (!c->keep_alive)
		stream_finish(&c->stream);
}

void conn_json(struct conn *c, int status, cJSON *json)
{
	char *text = json ? cJSON_PrintUnformatted(json) : strdup("{}");

	cJSON_Delete(json);
	if (text)
		conn_text(c, status, "application/json", text, strlen(text));
	else
		conn_close(c);
	free(text);
}

void conn_error(struct conn *c, int status, int code, const char *fmt, ...)
{
	cJSON *json = cJSON_CreateObject();
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)cJSON_AddStringToObject(json, "message", text);
	(void)cJSON_AddNumberToObject(json, "code", code);
	conn_json(c, status, json);
}

void conn_upgrade(struct conn *c)
{
	static const char head[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: roux-frames\r\n\r\n";

	(void)stream_write(&c->stream, head, sizeof(head) - 1);
}

void conn_exited(struct conn *c, int status)
{
	uint8_t buf[32];
	struct frame_writer w;

	frame_begin(&w, buf, sizeof(buf), AGENT_EXITED);
	if (status > 128 && status < 128 + 65)
		field_put_u32(&w, AGENT_TAG_SIGNO, (uint32_t)status - 128);
	else
		field_put_u32(&w, AGENT_TAG_STATUS, (uint32_t)status);
	(void)stream_write(&c->stream, buf, frame_end(&w));
}

void conn_failed(struct conn *c, int error, int status, const char *message)
{
	uint8_t buf[600];
	struct frame_writer w;
	char text[400];

	(void)snprintf(text, sizeof(text), "%s", message);
	frame_begin(&w, buf, sizeof(buf), AGENT_ERROR);
	field_put_u32(&w, AGENT_TAG_ERRNO, (uint32_t)error);
	field_put_u32(&w, AGENT_TAG_STATUS, (uint32_t)status);
	field_put_str(&w, AGENT_TAG_MESSAGE, text);
	(void)stream_write(&c->stream, buf, frame_end(&w));
}

void conn_note(struct conn *c, const char *text, size_t len)
{
	while (len) {
		size_t n = len < AGENT_DATA_MAX ? len : AGENT_DATA_MAX;

		(void)stream_frame(&c->stream, LIFE_NOTE, text, n);
		text += n;
		len -= n;
	}
}

/* ---------------------------------------------------------------- requests */

/* Handles one request when it is all there; false when not, or the connection is done with HTTP. */
static bool take_request(struct conn *c)
{
	struct stream *s = &c->stream;
	struct http_request rq;
	char *body;
	int r = http_parse_request((const char *)s->in, s->in_len, &rq);

	if (r == 0)
		return false;
	c->keep_alive = r > 0 && rq.keep_alive;
	if (r < 0) {
		conn_error(c, -r, 1, "%s", http_reason(-r));
		return false;
	}
	if (s->in_len < rq.head_len + rq.body_len)
		return false;
	body = strndup((const char *)s->in + rq.head_len, rq.body_len);
	stream_take(s, rq.head_len + rq.body_len);
	if (body)
		service_request(c, &rq, body);
	else
		conn_close(c);
	free(body);
	return c->mode == CONN_HTTP && !s->finishing;
}

static void take_frames(struct conn *c)
{
	struct stream *s = &c->stream;
	size_t at = 0;
	struct frame f;
	int r = 0;

	while (c->mode == CONN_ATTACHED && !s->finishing &&
	       (r = frame_parse(s->in + at, s->in_len - at, AGENT_DATA_MAX, &f)) == 1) {
		at += FRAME_HEADER + f.len;
		if (!command_client_frame(c, &f))
			r = -1;
		if (r < 0)
			break;
	}
	stream_take(s, at);
	if (r < 0)
		conn_close(c);
}

static void on_data(void *ctx)
{
	struct conn *c = ctx;

	while (c->mode == CONN_HTTP && c->stream.in_len && take_request(c))
		;
	if (c->mode == CONN_ATTACHED)
		take_frames(c);
	else if (c->mode == CONN_RELAY)
		guest_relay(c);
	else if (c->mode == CONN_WAITING && c->stream.in_len)
		conn_close(c);	/* one request at a time */
}

static void on_closed(void *ctx)
{
	conn_close(ctx);
}

static void on_drained(void *ctx)
{
	struct conn *c = ctx;

	if (c->mode == CONN_ATTACHED)
		command_unblock(c->m);
	else if (c->mode == CONN_RELAY)
		guest_relay(c);
}

struct conn *server_add(struct monitor *m, int fd)
{
	static const struct stream_ops ops = { .on_data = on_data, .on_closed = on_closed, .on_drained = on_drained };
	struct conn *c = m->nconns < CONNS_MAX ? calloc(1, sizeof(*c)) : NULL;

	if (!c) {
		(void)close(fd);
		return NULL;
	}
	c->m = m;
	if (stream_open(&c->stream, m->loop, fd, IN_MAX, &ops, c) < 0) {
		free(c);
		return NULL;
	}
	c->next = m->conns;
	m->conns = c;
	m->nconns++;
	return c;
}

/* ------------------------------------------------------------------ socket */

/* The folder keeps others out; who connects through a descriptor passed on is asked who it is. */
static bool is_ours(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && (cred.uid == geteuid() || cred.uid == 0);
}

static void on_connect(void *ctx, uint32_t events)
{
	struct monitor *m = ctx;
	int fd = accept4(m->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	if (is_ours(fd))
		(void)server_add(m, fd);
	else
		(void)close(fd);
}

int server_listen(struct monitor *m, struct err *err)
{
	union {
		struct sockaddr_un un;
		struct sockaddr any;
	} a = { .un = { .sun_family = AF_UNIX } };
	int dir = open(m->owned.state, O_PATH | O_DIRECTORY | O_CLOEXEC), r = 0;
	mode_t mask;

	if (dir < 0)
		return err_set(err, -errno, "cannot open %.150s: %s", m->owned.state, strerror(errno));
	/* The folder's own path may be longer than an address of a socket. */
	(void)snprintf(a.un.sun_path, sizeof(a.un.sun_path), "/proc/self/fd/%d/sock", dir);
	(void)unlink(a.un.sun_path);
	m->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mask = umask(0177);
	if (m->listen_fd < 0 || bind(m->listen_fd, &a.any, sizeof(a.un)) < 0 || listen(m->listen_fd, 64) < 0)
		r = err_set(err, -errno, "cannot make a socket in %.150s: %s", m->owned.state, strerror(errno));
	(void)umask(mask);
	(void)close(dir);
	return r < 0 ? r : loop_add_fd(m->loop, m->listen_fd, EPOLLIN, on_connect, m, &m->listen, err);
}

void server_finish(struct monitor *m)
{
	loop_remove(m->listen);
	m->listen = NULL;
	(void)close(m->listen_fd);	/* who has connected and was not accepted hears it now */
	m->listen_fd = -1;
	for (struct conn *c = m->conns; c; c = c->next)
		conn_finish(c);
	if (!m->conns)
		loop_quit(m->loop);
}
