/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/image.h"

#include "cli/cli.h"

#include <cjson/cJSON.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

volatile int image_stop;

static void on_signal(int sig)
{
	image_stop = sig;
}

void image_catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

	(void)sigaction(SIGINT, &sa, NULL);
	(void)sigaction(SIGTERM, &sa, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
}

bool image_open_store(struct store **ret_store)
{
	struct err err = { 0 };

	if (store_open(NULL, ret_store, &err) == 0)
		return true;
	(void)complain(EXIT_FAILED, "%s", err.msg);
	return false;
}

int image_failed(const struct err *err)
{
	(void)complain(EXIT_FAILED, "%s", err->msg);
	return image_stop ? 128 + image_stop : EXIT_FAILED;
}

static void take_text(char *dst, size_t size, const cJSON *doc, const char *key)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(doc, key));

	(void)snprintf(dst, size, "%s", text ? text : "");
	for (; *dst; dst++)	/* it is shown on a terminal */
		if ((unsigned char)*dst < 0x20 || *dst == 0x7f)
			*dst = '?';
}

void image_facts(struct store *store, const struct store_ref *ref, struct image_facts *f)
{
	struct manifest *m = calloc(1, sizeof(*m));
	char *json, os[24], arch[24];
	size_t len;
	cJSON *doc;

	*f = (struct image_facts){ .ref = *ref };
	(void)reference_parse(ref->name, &f->name, NULL);
	if (!m || local_any_manifest(store, ref->digest, m, NULL, NULL) < 0) {
		free(m);
		return;
	}
	f->size = m->config.size;
	for (size_t i = 0; i < m->nlayers; i++)
		f->size += m->layer[i].size;
	memcpy(f->id, m->config.digest, sizeof(f->id));
	if (store_read(store, f->id, LOCAL_JSON_MAX, &json, &len, NULL) == 0) {
		doc = cJSON_ParseWithLength(json, len);
		take_text(f->created, sizeof(f->created), doc, "created");
		take_text(os, sizeof(os), doc, "os");
		take_text(arch, sizeof(arch), doc, "architecture");
		(void)snprintf(f->platform, sizeof(f->platform), "%s/%s", os, arch);
		cJSON_Delete(doc);
		free(json);
	}
	free(m);
}

const char *image_size(uint64_t bytes, char buf[16])
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB" };
	double v = (double)bytes;
	unsigned u = 0;

	while (v >= 999.5 && u < 5) {
		v /= 1000;
		u++;
	}
	(void)snprintf(buf, 16, u == 0 || v >= 99.95 ? "%.0f%s" : v >= 9.995 ? "%.1f%s" : "%.2f%s", v, units[u]);
	return buf;
}

void image_age(const char *created, char *buf, size_t size)
{
	static const struct { long seconds; const char *name; } units[] = {
		{ 365 * 86400, "year" }, { 30 * 86400, "month" }, { 7 * 86400, "week" }, { 86400, "day" },
		{ 3600, "hour" }, { 60, "minute" }, { 1, "second" } };
	struct tm tm = { 0 };
	long age;

	if (!strptime(created, "%Y-%m-%dT%H:%M:%S", &tm)) {
		(void)snprintf(buf, size, "N/A");
		return;
	}
	age = (long)(time(NULL) - timegm(&tm));
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (age >= units[i].seconds) {
			long n = age / units[i].seconds;

			(void)snprintf(buf, size, "%ld %s%s ago", n, units[i].name, n == 1 ? "" : "s");
			return;
		}
	(void)snprintf(buf, size, "now");
}

int verb_help(const char *text)
{
	(void)fputs(text, stdout);
	return 0;
}

int verb_misused(const char *verb, const char *why)
{
	return complain(EXIT_ROUX, "%s; see 'roux %s --help'", why, verb);
}
