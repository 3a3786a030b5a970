/* SPDX-License-Identifier: Apache-2.0 */
#include "life/client.h"

#include "life/http.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define REPLY_MAX (64u << 20)	/* bytes */

int client_connect(const struct vms *vms, const char *id)
{
	union {
		struct sockaddr_un un;
		struct sockaddr any;
	} a = { .un = { .sun_family = AF_UNIX } };
	char path[PATH_MAX];
	int dir, fd, r = 0;

	(void)snprintf(path, sizeof(path), "%s/vms/%s", vms->state, id);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	(void)snprintf(a.un.sun_path, sizeof(a.un.sun_path), "/proc/self/fd/%d/sock", dir);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, &a.any, sizeof(a.un)) < 0)
		r = -errno;
	(void)close(dir);
	if (r < 0 && fd >= 0)
		(void)close(fd);
	return r < 0 ? r : fd;
}

static int send_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int send_request(int fd, const char *method, const char *target, const char *body, bool upgrade)
{
	char *text;
	int n = asprintf(&text, "%s %s HTTP/1.1\r\nHost: roux\r\n%sContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
			 method, target, upgrade ? "Connection: Upgrade\r\nUpgrade: roux-frames\r\n" : "",
			 body ? strlen(body) : 0, body ? body : "");
	int r;

	if (n < 0)
		return -ENOMEM;
	r = send_all(fd, text, (size_t)n);
	free(text);
	return r;
}

struct reply {
	int status;	/* of HTTP */
	char *body;	/* owned, NUL-terminated; free() it */
	size_t len;
};

struct received {
	char *buf;	/* owned */
	size_t len, cap;
};

/* Reads more.  0, -EPIPE at the end, -ETIMEDOUT, -EINTR when a signal came, ... */
static int receive(int fd, struct received *in, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;
	int r;

	if (in->cap - in->len < 4096) {
		size_t cap = in->cap ? in->cap * 2 : 16384;
		char *more = cap > REPLY_MAX ? NULL : realloc(in->buf, cap);

		if (!more)
			return -ENOMEM;
		in->buf = more;
		in->cap = cap;
	}
	r = poll(&p, 1, timeout_ms);
	if (r <= 0)
		return r < 0 ? -errno : -ETIMEDOUT;
	n = recv(fd, in->buf + in->len, in->cap - in->len - 1, 0);
	if (n <= 0)
		return n < 0 ? -errno : -EPIPE;
	in->len += (size_t)n;
	in->buf[in->len] = '\0';
	return 0;
}

static int receive_head(int fd, struct received *in, int timeout_ms, struct http_response *ret)
{
	int r;

	while ((r = in->len ? http_parse_response(in->buf, in->len, ret) : 0) == 0) {
		r = receive(fd, in, timeout_ms);
		if (r < 0)
			return r;
	}
	return r < 0 ? -EPROTO : 0;
}

/* As it is when a monitor ends: who has connected then may be hung up on before the request is read. */
static bool has_gone(int r)
{
	return r == -EPIPE || r == -ECONNRESET || r == -ECONNREFUSED || r == -ENOENT;
}

static int failed(int r, struct err *err)
{
	return err_set(err, r, has_gone(r) ? "the VM has ended: its monitor has gone" :
		       r == -ETIMEDOUT ? "the VM's monitor does not answer" : r == -EINTR ? "interrupted" :
		       "the VM's monitor cannot be understood");
}

static int receive_reply(int fd, struct received *in, int timeout_ms, struct reply *ret)
{
	struct http_response head;
	int r = receive_head(fd, in, timeout_ms, &head);

	while (r == 0 && in->len - head.head_len < head.body_len) {
		r = receive(fd, in, timeout_ms);
		if (r == -EPIPE && head.body_len == UINT64_MAX)
			break;
	}
	if (r < 0 && !(r == -EPIPE && head.body_len == UINT64_MAX))
		return r;
	ret->status = head.status;
	ret->len = in->len - head.head_len;
	ret->body = malloc(ret->len + 1);
	if (!ret->body)
		return -ENOMEM;
	memcpy(ret->body, in->buf + head.head_len, ret->len);
	ret->body[ret->len] = '\0';
	return 0;
}

/* Sends a request and waits for the answer.  0 and the reply, or a negative errno. */
static int request(int fd, const char *method, const char *target, const char *body, int timeout_ms,
		   struct reply *ret_reply, struct err *err)
{
	struct received in = { 0 };
	int r = send_request(fd, method, target, body, false);

	if (r == 0)
		r = receive_reply(fd, &in, timeout_ms, ret_reply);
	free(in.buf);
	return r < 0 ? failed(r, err) : 0;
}

/* The sentence and exit status of a monitor that says no. */
static int refused(const char *body, int *ret_code, struct err *err)
{
	cJSON *json = cJSON_Parse(body);
	const char *message = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "message"));
	const cJSON *code = cJSON_GetObjectItemCaseSensitive(json, "code");

	if (ret_code)
		*ret_code = cJSON_IsNumber(code) ? code->valueint : 1;
	(void)err_set(err, -EREMOTEIO, "%s", message ? message : "the VM's monitor refuses");
	cJSON_Delete(json);
	return -EREMOTEIO;
}

int client_upgrade(int fd, const char *target, const char *body, struct session *ret, int *ret_code, struct err *err)
{
	struct received in = { 0 };
	struct http_response head;
	struct reply reply;
	int r = send_request(fd, "POST", target, body, true);

	if (r == 0)
		r = receive_head(fd, &in, -1, &head);
	if (r == 0 && head.status != 101) {
		r = receive_reply(fd, &in, -1, &reply);
		if (r == 0) {
			r = refused(reply.body, ret_code, err);
			free(reply.body);
			free(in.buf);
			return r;
		}
	}
	if (r < 0) {
		free(in.buf);
		return failed(r, err);
	}
	memmove(in.buf, in.buf + head.head_len, in.len - head.head_len);
	*ret = (struct session){ .fd = fd, .in = (uint8_t *)in.buf, .in_len = in.len - head.head_len, .in_cap = in.cap };
	return 0;
}

int client_ask(const struct vms *vms, const char *id, const char *method, const char *target, const char *body,
	       int timeout_ms, cJSON **ret_json, struct err *err)
{
	int fd = client_connect(vms, id), r;
	struct reply reply;

	if (fd < 0)
		return has_gone(fd) ? err_set(err, -ESRCH, "the VM has ended") :
		       err_set(err, fd, "the VM's monitor cannot be reached: %s", strerror(-fd));
	r = request(fd, method, target, body, timeout_ms, &reply, err);
	(void)close(fd);
	if (r < 0)
		return has_gone(r) ? -ESRCH : r;
	if (reply.status != 200)
		r = refused(reply.body, NULL, err);
	if (reply.status == 410)
		r = -ESRCH;
	if (r == 0 && ret_json) {
		*ret_json = cJSON_ParseWithLength(reply.body, reply.len);
		if (!*ret_json)
			r = failed(-EPROTO, err);
	}
	free(reply.body);
	return r;
}

#define LOAD_TIMEOUT_MS 5000
#define LOAD_TRIES 20u /* a monitor that ends closes its socket moments before it gives its lock back */
#define LOAD_WAIT_US 10000u

/* The record in a reply.  -ECONNREFUSED when it has none: @record is then as it was. */
static int take_record(const struct reply *reply, struct vm_record *record, struct err *err)
{
	if (reply->status != 200)
		return -ECONNREFUSED;
	record_finish(record);
	return record_decode(reply->body, reply->len, record, err);
}

int client_load(const struct vms *vms, const char *id, struct vm_record *record, bool *ret_alive, struct err *err)
{
	for (unsigned i = 0;; i++) {
		int fd, r = vms_load(vms, id, record, ret_alive, err);
		struct reply reply;

		if (r < 0 || !*ret_alive)
			return r;
		fd = client_connect(vms, id);
		if (fd >= 0) {
			r = request(fd, "GET", "/v1/vm", NULL, LOAD_TIMEOUT_MS, &reply, err);
			(void)close(fd);
			if (r == 0) {
				r = take_record(&reply, record, err);
				free(reply.body);
			}
			if (r == 0)
				return 0;
		}
		if (i == LOAD_TRIES)
			return 0;	/* somebody else owns it, or it hangs: what the file says */
		(void)usleep(LOAD_WAIT_US);
		record_finish(record);
	}
}
