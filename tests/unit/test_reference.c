/* SPDX-License-Identifier: Apache-2.0 */
/* Names of images, what registries ask for, and docker's configuration. */
#include "oci/auth.h"
#include "oci/manifest.h"
#include "oci/reference.h"
#include "os/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define D "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static struct err err;

static void test_names_get_dockers_defaults(void **state)
{
	static const struct { const char *text, *full, *familiar; } names[] = {
		{ "alpine", "docker.io/library/alpine:latest", "alpine:latest" },
		{ "alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20" },
		{ "me/app", "docker.io/me/app:latest", "me/app:latest" },
		{ "docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest" },
		{ "index.docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest" },
		{ "library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest" },
		{ "docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest" },
		{ "localhost/x", "localhost/x:latest", "localhost/x:latest" },
		{ "localhost:5000/a/b-c_d__e.f/g:T_1.x-", "localhost:5000/a/b-c_d__e.f/g:T_1.x-", "localhost:5000/a/b-c_d__e.f/g:T_1.x-" },
		{ "[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1" },
		{ "quay.io/a@" D, "quay.io/a@" D, "quay.io/a@" D },
		{ "quay.io/a:1@" D, "quay.io/a@" D, "quay.io/a@" D },
	};
	char text[STORE_NAME_MAX];
	struct reference ref, again;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(reference_parse(names[i].text, &ref, &err), 0);
		reference_name(&ref, text);
		assert_string_equal(text, names[i].full);
		assert_int_equal(reference_parse(text, &again, &err), 0);
		assert_memory_equal(ref.path, again.path, strlen(ref.path) + 1);
		reference_familiar(&ref, text);
		assert_string_equal(text, names[i].familiar);
	}
}

static void test_what_is_no_name_is_refused(void **state)
{
	static const char *const wrong[] = {
		"", "/", "a/", "/a", "A", "a//b", "a:", "a:-x", "a:x:y", "a@", "a@sha256:12", "a@sha512:" "00", "a_", "a..b", "a___b", "-a",
		"a/../b", "UPPER.example/", "host:port/x", "ho st/x", "a b", "a\nb", "[::1/x", "http://a/b", "x:" "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	};
	char huge[2000];
	struct reference ref;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(reference_parse(wrong[i], &ref, &err), -EINVAL);
	memset(huge, 'a', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = '\0';
	assert_int_equal(reference_parse(huge, &ref, &err), -EINVAL);
}

static void test_plain_http_is_for_this_machine_only(void **state)
{
	assert_true(reference_host_is_local("localhost") && reference_host_is_local("localhost:5000") &&
		    reference_host_is_local("127.0.0.1:80") && reference_host_is_local("[::1]:5000"));
	assert_false(reference_host_is_local("localhost.example") || reference_host_is_local("127.0.0.1.nip.io") ||
		     reference_host_is_local("docker.io") || reference_host_is_local("10.0.0.1:5000"));
}

static void test_challenges(void **state)
{
	struct auth_challenge c;

	assert_int_equal(auth_parse_challenge("Basic realm=\"x\"", &c, &err), 0);
	assert_int_equal(c.scheme, AUTH_BASIC);
	assert_int_equal(auth_parse_challenge("bearer realm=\"https://a/t\" , service=reg,scope=\"repository:a\\\"b:pull,push\"", &c, &err), 0);
	assert_int_equal(c.scheme, AUTH_BEARER);
	assert_string_equal(c.realm, "https://a/t");
	assert_string_equal(c.service, "reg");
	assert_string_equal(c.scope, "repository:a\"b:pull,push");
	assert_int_equal(auth_parse_challenge("Bearer service=\"x\"", &c, &err), -EBADMSG);
	assert_int_equal(auth_parse_challenge("Bearer realm=\"file:///etc/passwd\"", &c, &err), -EBADMSG);
	assert_int_equal(auth_parse_challenge("Bearer realm=\"https://a/t", &c, &err), -EBADMSG);
	assert_int_equal(auth_parse_challenge("Digest realm=\"x\"", &c, &err), -EBADMSG);
	assert_int_equal(auth_parse_challenge("", &c, &err), -EBADMSG);
}

static int parse_config(const char *json, const char *host, struct auth_login *login, char helper[128])
{
	return auth_parse_config(json, strlen(json), host, login, helper, &err);
}

static void test_dockers_configuration(void **state)
{
	static struct auth_login login;
	char helper[128], *basic;

	assert_int_equal(parse_config("{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"YW5uOnM6ZWNyZXQ=\"}}}", "docker.io", &login, helper), 0);
	assert_string_equal(login.user, "ann");
	assert_string_equal(login.secret, "s:ecret");
	basic = auth_basic(&login);
	assert_string_equal(basic, "Basic YW5uOnM6ZWNyZXQ=");
	free(basic);
	assert_int_equal(parse_config("{\"auths\":{\"https://r.example:5000\":{\"identitytoken\":\"tok\"}}}", "r.example:5000", &login, helper), 0);
	assert_string_equal(login.identity, "tok");
	assert_int_equal(parse_config("{\"auths\":{\"r.example\":{\"auth\":\"YW5uOnM6ZWNyZXQ=\"}}}", "r.example:5000", &login, helper), 0);
	assert_string_equal(login.user, "");
	assert_int_equal(parse_config("{\"credsStore\":\"desk\",\"credHelpers\":{\"r\":\"own\"}}", "r", &login, helper), 0);
	assert_string_equal(helper, "own");
	assert_int_equal(parse_config("{\"credsStore\":\"desk\"}", "x", &login, helper), 0);
	assert_string_equal(helper, "desk");
	assert_int_equal(parse_config("{\"credsStore\":\"../../bin/sh\"}", "x", &login, helper), -EBADMSG);
	assert_int_equal(parse_config("{\"auths\":{\"x\":{\"auth\":\"!!\"}}}", "x", &login, helper), -EBADMSG);
	assert_int_equal(parse_config("{\"auths\":{\"x\":{\"auth\":\"YW5u\"}}}", "x", &login, helper), -EBADMSG);
	assert_int_equal(parse_config("[]", "x", &login, helper), -EBADMSG);
}

static void test_a_platform_is_chosen_from_an_index(void **state)
{
#define ENTRY(digit, platform) "{\"digest\":\"sha256:000000000000000000000000000000000000000000000000000000000000000" digit \
	"\",\"size\":1,\"platform\":{" platform "}}"
	static const char json[] = "{\"manifests\":[" ENTRY("0", "\"os\":\"unknown\",\"architecture\":\"unknown\"") ","
		ENTRY("1", "\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v6\"") ","
		ENTRY("2", "\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v7\"") ","
		ENTRY("3", "\"os\":\"linux\",\"architecture\":\"amd64\"") "]}";
	static const struct { const char *platform; char digit; } wanted[] = {
		{ "linux/amd64", '3' }, { "linux/arm", '1' }, { "linux/arm/v7", '2' } };
	const struct index_entry *e;
	struct index index;
	int r = 0;

	assert_int_equal(manifest_parse_index(json, strlen(json), &index, &err), 0);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		e = manifest_choose(&index, "", wanted[i].platform, &r, &err);
		assert_non_null(e);
		assert_int_equal(e->desc.digest[STORE_DIGEST_SIZE - 2], wanted[i].digit);
	}
	assert_null(manifest_choose(&index, "", "linux/amd", &r, &err));
	assert_int_equal(r, -ENOEXEC);
	assert_null(manifest_choose(&index, "", "linux/arm64", &r, &err));
	manifest_free_index(&index);
}

static void test_a_document_means_one_thing(void **state)
{
	enum manifest_kind kind;
	char type[MEDIA_TYPE_MAX];
	const char *index = "{\"manifests\":[]}", *image = "{\"config\":{},\"mediaType\":\"" MEDIA_DOCKER_MANIFEST "\"}";

	assert_int_equal(manifest_kind(index, strlen(index), &kind, type, &err), 0);
	assert_int_equal(kind, MANIFEST_IS_INDEX);
	assert_string_equal(type, MEDIA_OCI_INDEX);
	assert_int_equal(manifest_kind(image, strlen(image), &kind, type, &err), 0);
	assert_int_equal(kind, MANIFEST_IS_IMAGE);
	assert_string_equal(type, MEDIA_DOCKER_MANIFEST);
	assert_int_equal(manifest_kind("{\"manifests\":[],\"config\":{}}", 29, &kind, type, &err), -EBADMSG);
	assert_int_equal(manifest_kind("{}", 2, &kind, type, &err), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_get_dockers_defaults),
		cmocka_unit_test(test_what_is_no_name_is_refused),
		cmocka_unit_test(test_plain_http_is_for_this_machine_only),
		cmocka_unit_test(test_challenges),
		cmocka_unit_test(test_dockers_configuration),
		cmocka_unit_test(test_a_platform_is_chosen_from_an_index),
		cmocka_unit_test(test_a_document_means_one_thing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
