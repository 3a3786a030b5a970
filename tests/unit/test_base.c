/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 and cpio against known results. */
#include "base/cpio.h"
#include "base/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void hash_of(const void *data, size_t len, size_t step, char hex[SHA256_HEX_SIZE])
{
	struct sha256 hash;

	sha256_init(&hash);
	for (size_t at = 0; at < len; at += step)
		sha256_add(&hash, (const char *)data + at, len - at < step ? len - at : step);
	sha256_finish_hex(&hash, hex);
}

/* FIPS 180-4 example values (NIST's "SHA256.pdf"). */
static void test_published_examples_match(void **state)
{
	static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
	char hex[SHA256_HEX_SIZE];

	hash_of("", 0, 1, hex);
	assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	hash_of("abc", 3, 3, hex);
	assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	hash_of(two, 56, 56, hex);
	assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void test_pieces_hash_like_the_whole(void **state)
{
	static uint8_t data[1000];
	char whole[SHA256_HEX_SIZE], pieces[SHA256_HEX_SIZE];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	for (size_t len = 0; len < 260; len++) {
		hash_of(data, len, 1000, whole);
		for (size_t step = 1; step < 70; step += 3) {
			hash_of(data, len, step, pieces);
			assert_string_equal(whole, pieces);
		}
	}
}

static void test_archive_has_the_layout_linux_reads(void **state)
{
	static const char want[] =
		"070701" "00000001" "000041ed" "00000000" "00000000" "00000002" "00000000" "00000000"
		"00000000" "00000000" "00000000" "00000000" "00000002" "00000000" "d\0"
		"070701" "00000002" "000081a4" "00000000" "00000000" "00000001" "00000000" "00000005"
		"00000000" "00000000" "00000000" "00000000" "00000004" "00000000" "d/f\0\0\0"
		"hello\0\0\0"
		"070701" "00000000" "00000000" "00000000" "00000000" "00000001" "00000000" "00000000"
		"00000000" "00000000" "00000000" "00000000" "0000000b" "00000000" "TRAILER!!!\0\0\0"; /* and the NUL of the literal */
	char buf[1024];
	struct cpio c;

	cpio_begin(&c, buf, sizeof(buf));
	cpio_dir(&c, "d", 0755);
	cpio_file(&c, "d/f", 0644, "hello", 5);
	assert_int_equal(cpio_end(&c), sizeof(want));
	assert_memory_equal(buf, want, sizeof(want));
}

static void test_counting_gives_the_size_and_overflow_is_noticed(void **state)
{
	char buf[200];
	struct cpio c;

	cpio_begin(&c, NULL, 0);
	cpio_char_device(&c, "dev", 0600, 5, 1);
	assert_int_equal(cpio_end(&c), 116 + 124);
	cpio_begin(&c, buf, sizeof(buf));
	cpio_char_device(&c, "dev", 0600, 5, 1);
	assert_int_equal(cpio_end(&c), 0);
}

/* RFC 4231, test case 2; a short key is one with zeros behind it. */
static void test_keyed_hashes_are_those_of_the_rfc(void **state)
{
	static const uint8_t key[SHA256_SIZE] = "Jefe", expected[SHA256_SIZE] = {
		0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7,
		0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43 };
	uint8_t found[SHA256_SIZE];

	sha256_keyed(key, "what do ya want for nothing?", 28, found);
	assert_memory_equal(found, expected, sizeof(found));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keyed_hashes_are_those_of_the_rfc),
		cmocka_unit_test(test_published_examples_match),
		cmocka_unit_test(test_pieces_hash_like_the_whole),
		cmocka_unit_test(test_archive_has_the_layout_linux_reads),
		cmocka_unit_test(test_counting_gives_the_size_and_overflow_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
